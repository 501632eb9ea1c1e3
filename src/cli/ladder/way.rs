//! The way that a payload byte was seen to take.
//!
//! A rung promises a way ([`Rung::hops`]). What is shown of a run is that way as it was counted: as many of its
//! arrows are the processor's as there were copies of each byte, whatever the rung promises, and a place
//! where no byte was is not on it. [`Way::of_run`] is the only way to one that is shown beside figures.

use std::fmt;

use super::list;
use crate::paths::ladder::{Carrier, Kind, Place, Rung};

/// The place of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// On the disk.
    Disk,
    /// In a helper of ours that feeds a stream.
    Feeder,
    /// On its way.
    At(Place),
    /// In the other socket of this machine: over loopback no card is on the way.
    Receiver,
}

/// A stretch of the way: who carries a byte along it, and where it is then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// All who do, one after the other.
    pub by: Vec<Carrier>,
    /// The byte's place afterwards.
    pub to: Stop,
}

/// Copies of each byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Copies {
    /// Copies by the rung's own account: what it copied itself, and what the kernel told it.
    pub account: f64,
    /// Copies by what the kernel's routines were seen to do, where somebody looked; they do not see what a program
    /// copies.
    pub seen: Option<f64>,
}

impl Copies {
    /// Returns the copies in whole numbers, the greater of the two counts: neither sees all.
    pub fn counted(self) -> usize {
        self.by_account()
            .max(self.seen.map_or(0, |seen| seen.round() as usize))
    }

    fn by_account(self) -> usize {
        self.account.round() as usize
    }
}

/// The facts of a run that its way depends on.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Copies of each byte.
    pub copies: Copies,
    /// True if it left by a card.
    pub by_card: bool,
    /// True if the file was read from its disk.
    pub cold: bool,
}

/// The way of a byte, from where to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The place where it begins.
    pub begin: Stop,
    /// The stretches from there on.
    pub stretches: Vec<Stretch>,
}

impl Way {
    /// Returns the way that `rung` promises.
    pub fn promised(rung: &Rung) -> Self {
        let stretch = |hop: &crate::paths::ladder::Hop| Stretch {
            by: vec![hop.by],
            to: Stop::At(hop.to),
        };
        Self {
            begin: match rung.kind {
                Kind::Send | Kind::Copy => Stop::Disk,
                Kind::Relay | Kind::Log => Stop::Feeder,
            },
            stretches: rung.hops.iter().map(stretch).collect(),
        }
    }

    /// Returns the way that was seen in `run`.
    pub fn of_run(rung: &Rung, run: Run) -> Self {
        let mut way = Self::promised(rung);
        if !run.by_card {
            way.no_card();
        }
        if !run.cold {
            way.no_disk();
        }
        let (account, counted) = (run.copies.by_account(), run.copies.counted());
        // What the kernel copied after all it copied where a reference should have gone to a socket.
        while way.copies() < account.min(counted) {
            way.add_copy(true);
        }
        // What nobody told the rung of came later, before the packet left: for a card that cannot gather.
        while way.copies() < counted {
            way.add_copy(false);
        }
        while way.copies() > counted {
            way.take_copy();
        }
        way
    }

    /// Arrows of the processor's.
    pub fn copies(&self) -> usize {
        self.carried(Carrier::Cpu)
    }

    /// Arrows of `by`.
    pub fn carried(&self, by: Carrier) -> usize {
        let all = self.stretches.iter().flat_map(|stretch| &stretch.by);
        all.filter(|carrier| **carrier == by).count()
    }

    fn no_card(&mut self) {
        for stretch in &mut self.stretches {
            if stretch.to == Stop::At(Place::Card) {
                *stretch = Stretch {
                    by: vec![Carrier::Reference],
                    to: Stop::Receiver,
                };
            }
        }
    }

    /// Its pages were in memory already.
    fn no_disk(&mut self) {
        let first = self.stretches.first();
        if self.begin == Stop::Disk
            && first.is_some_and(|first| first.to == Stop::At(Place::PageCache))
        {
            self.begin = self.stretches.remove(0).to;
        }
    }

    fn add_copy(&mut self, into_socket: bool) {
        let lent = |stretch: &Stretch| stretch.by == [Carrier::Reference];
        let socket = Stop::At(Place::Socket);
        let place = match into_socket {
            true => self
                .stretches
                .iter()
                .rposition(|stretch| lent(stretch) && stretch.to == socket)
                .or_else(|| self.stretches.iter().rposition(lent)),
            false => None,
        };
        match place {
            Some(place) => self.stretches[place].by = vec![Carrier::Cpu],
            None => {
                if let Some(last) = self.stretches.last_mut() {
                    match lent(last) {
                        true => last.by = vec![Carrier::Cpu],
                        false => last.by.insert(0, Carrier::Cpu),
                    }
                }
            }
        }
    }

    fn take_copy(&mut self) {
        for stretch in self.stretches.iter_mut().rev() {
            if let Some(at) = stretch.by.iter().position(|by| *by == Carrier::Cpu) {
                match stretch.by.len() {
                    1 => stretch.by[0] = Carrier::Reference,
                    _ => drop(stretch.by.remove(at)),
                }
                return;
            }
        }
    }
}

impl Stop {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Feeder => "feeder",
            Self::At(place) => list::place(place),
            Self::Receiver => "far end",
        }
    }
}

/// `disk ⇒ page cache → user → socket ⇒ card`.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.begin.name())?;
        for Stretch { by, to } in &self.stretches {
            f.write_str(" ")?;
            for by in by {
                f.write_str(match by {
                    Carrier::Dma => "⇒",
                    Carrier::Cpu => "→",
                    Carrier::Reference => "·",
                })?;
            }
            write!(f, " {}", to.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::paths::ladder::RUNGS;

    use super::*;

    fn way(name: &str, account: f64, seen: Option<f64>, by_card: bool) -> String {
        let rung = RUNGS.iter().find(|rung| rung.name == name).unwrap();
        let run = Run {
            copies: Copies { account, seen },
            by_card,
            cold: by_card,
        };
        Way::of_run(rung, run).to_string()
    }

    #[test]
    fn as_many_arrows_are_the_processors_as_copies_were_counted() {
        for rung in RUNGS {
            for account in 0..6 {
                for seen in [None, Some(0.0), Some(0.98), Some(2.04), Some(5.0)] {
                    for by_card in [false, true] {
                        let copies = Copies {
                            account: f64::from(account),
                            seen,
                        };
                        let run = Run {
                            copies,
                            by_card,
                            cold: true,
                        };
                        let way = Way::of_run(rung, run);
                        assert_eq!(way.copies(), copies.counted(), "{}: {way}", rung.name);
                        let card = way.to_string().contains("card");
                        assert!(by_card || !card, "{}: {way}", rung.name);
                    }
                }
            }
        }
    }

    #[test]
    fn a_rung_that_keeps_its_promise_goes_the_promised_way() {
        for rung in RUNGS {
            let promised = Way::promised(rung);
            let copies = promised.copies() as f64;
            let run = Run {
                copies: Copies {
                    account: copies,
                    seen: Some(copies),
                },
                by_card: true,
                cold: true,
            };
            assert_eq!(Way::of_run(rung, run), promised, "{}", rung.name);
        }
    }

    #[test]
    fn a_copy_is_where_a_reference_should_have_gone() {
        let sendfile = "disk ⇒ page cache → socket ⇒ card";
        assert_eq!(way("sendfile", 1.0, Some(1.0), true), sendfile);
        // For a card that cannot gather: the rung knows nothing of it.
        let gathered = "disk ⇒ page cache · socket →⇒ card";
        assert_eq!(way("sendfile", 0.0, Some(1.0), true), gathered);
        let loopback = "page cache · user → socket · far end";
        assert_eq!(way("MSG_ZEROCOPY", 1.0, None, false), loopback);
        assert_eq!(
            way("copy_file_range", 0.0, None, true),
            "disk ⇒ page cache · other file"
        );
    }
}

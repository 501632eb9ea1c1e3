//! Rust source as tokens: what it names, and whether it has `unsafe` in it. Comments and strings are neither.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A token; groups are between their brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Mark(char),
    Text(String),
    Open(char),
    Close,
}

use Token::{Close, Mark, Open, Text, Word};

fn flatten(stream: TokenStream, into: &mut Vec<Token>) {
    for tree in stream {
        match tree {
            TokenTree::Ident(word) => into.push(Word(word.to_string())),
            TokenTree::Punct(mark) => into.push(Mark(mark.as_char())),
            TokenTree::Literal(text) => into.push(Text(text.to_string())),
            TokenTree::Group(group) => {
                let open = match group.delimiter() {
                    Delimiter::Brace => '{',
                    Delimiter::Bracket => '[',
                    _ => '(',
                };
                into.push(Open(open));
                flatten(group.stream(), into);
                into.push(Close);
            }
        }
    }
}

/// The text of one file, and the module that it is.
pub struct Source {
    tokens: Vec<Token>,
    module: Vec<String>,
}

impl Source {
    /// # Panics
    /// If it is no Rust.
    pub fn new(text: &str, module: &[&str]) -> Self {
        let stream: TokenStream = text.parse().expect("Rust");
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        Self {
            tokens,
            module: module.iter().map(|part| (*part).to_owned()).collect(),
        }
    }

    /// Returns whether it has unsafe code.
    pub fn is_unsafe(&self) -> bool {
        self.tokens.contains(&Word("unsafe".to_owned()))
    }

    /// Its strings, as they are written; no docs.
    pub fn strings(&self) -> impl Iterator<Item = &str> {
        let is_doc =
            |at: usize| at >= 2 && self.tokens[at - 2..at] == [Word("doc".to_owned()), Mark('=')];
        let texts = self.tokens.iter().enumerate();
        texts.filter_map(move |(at, token)| match token {
            Text(text) if !is_doc(at) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The macros that it defines.
    pub fn macros(&self) -> Vec<&str> {
        let named = |window: &[Token]| match window {
            [Word(define), Mark('!'), Word(_)] => define == "macro_rules",
            _ => false,
        };
        let windows = self.tokens.windows(3).filter(|window| named(window));
        windows
            .map(|window| match &window[2] {
                Word(name) => name.as_str(),
                _ => unreachable!("just seen"),
            })
            .collect()
    }

    /// All paths into this crate, from its root on, as `use` lines and bodies name them.
    pub fn paths(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        self.walk(0, &mut self.module.clone(), &mut found);
        found
    }

    /// Reads on from token `at` to the end of the group that it is in, within `module`.
    fn walk(&self, mut at: usize, module: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
        while let Some(token) = self.tokens.get(at) {
            match token {
                Close => return at + 1,
                Open(_) => {
                    let inner = self.module_before(at);
                    module.extend(inner.clone());
                    at = self.walk(at + 1, module, found);
                    if inner.is_some() {
                        module.pop();
                    }
                    continue;
                }
                Word(word) if !self.is_inside_path(at) => {
                    let root = match word.as_str() {
                        "crate" | "pinwire" => Some(Vec::new()),
                        "self" => Some(module.clone()),
                        "super" => Some(module[..module.len().saturating_sub(1)].to_vec()),
                        _ => None,
                    };
                    if let Some(root) = root
                        && self.is_followed(at)
                    {
                        at = self.path(at + 3, root, found);
                        continue;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        at
    }

    /// Reads a path, or a tree of them, that goes on at token `at` behind `so_far`.
    fn path(&self, at: usize, so_far: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
        match self.tokens.get(at) {
            Some(Word(word)) => {
                let mut longer = so_far;
                match word.as_str() {
                    "super" => drop(longer.pop()),
                    "self" => {}
                    _ => longer.push(word.clone()),
                }
                if self.is_followed(at) {
                    return self.path(at + 3, longer, found);
                }
                found.push(longer);
                at + 1
            }
            Some(Open('{')) => {
                let mut at = at + 1;
                while !matches!(self.tokens.get(at), None | Some(Close)) {
                    at = match self.tokens[at] {
                        Word(_) | Open(_) => self.path(at, so_far.clone(), found),
                        _ => at + 1,
                    };
                    // `as NAME`
                    if self.tokens.get(at) == Some(&Word("as".to_owned())) {
                        at += 2;
                    }
                }
                at + 1
            }
            _ => {
                found.push(so_far);
                at + 1
            }
        }
    }

    /// Returns whether token `at` is followed by `::`.
    fn is_followed(&self, at: usize) -> bool {
        self.tokens.get(at + 1..at + 3) == Some(&[Mark(':'), Mark(':')])
    }

    /// Returns whether it is in the middle of a path (`a::self::b`).
    fn is_inside_path(&self, at: usize) -> bool {
        at >= 2 && self.tokens[at - 2..at] == [Mark(':'), Mark(':')]
    }

    /// The name of the module whose body opens at token `at`.
    fn module_before(&self, at: usize) -> Option<String> {
        match (
            self.tokens.get(at)?,
            self.tokens.get(at.checked_sub(2)?..at)?,
        ) {
            (Open('{'), [Word(word), Word(name)]) if word == "mod" => Some(name.clone()),
            _ => None,
        }
    }
}

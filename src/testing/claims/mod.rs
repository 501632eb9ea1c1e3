//! The claims, and the macro that makes a test of each.

mod life;
mod offload;
mod receive;
mod send;
mod wait;

use self::life::*;
use self::offload::*;
use self::receive::*;
use self::send::*;
use self::wait::*;
use super::Claim;

/// Makes the table of the claims, and of each a test in [`conformance!`](crate::conformance): one list for both.
macro_rules! claims {
    (($d:tt) $($name:ident)*) => {
        /// All claims.
        pub const CLAIMS: &[Claim] = &[$((stringify!($name), $name)),*];

        /// Makes a test of every claim about a driver of network cards ([`testing`](crate::testing)), to be written once
        /// in a file of `tests/`: of the [`Drivers`](crate::open::Drivers) and the models of QEMU that they drive, or
        /// of [`Cards`](crate::testing::Cards).
        ///
        /// ```
        /// use pinwire::open::Drivers;
        /// pinwire::conformance!(Drivers::default(), "qtest:e1000", "qtest:virtio-net,packed=on");
        /// ```
        #[macro_export]
        macro_rules! conformance {
            ($d drivers:expr, $d ($d model:literal),+ $d (,)?) => {
                $crate::conformance!(
                    $crate::testing::Cards::new($d drivers) $d (.model($d model))+
                );
            };
            ($d cards:expr $d (,)?) => {
                $(
                    #[test]
                    fn $name() {
                        $crate::testing::check(&$d cards, stringify!($name));
                    }
                )*
            };
        }
    };
}

claims! { ($)
    frames_of_every_length_leave_as_they_are
    the_ring_wraps_many_times
    a_frame_of_many_segments_leaves_whole
    the_longest_frame_leaves_whole_and_one_too_long_is_refused
    a_frame_of_another_space_is_refused_and_stays
    received_buffers_can_be_sent_again
    the_payload_is_read_from_the_page_cache
    what_a_card_does_not_offer_it_refuses
    headers_that_cannot_be_are_refused_and_the_frame_stays
    a_header_checksum_over_ipv6_is_refused
    the_card_inserts_the_ip_checksum
    the_card_inserts_ip_and_udp_checksums
    the_card_inserts_udp_checksums_over_ipv6
    the_card_inserts_tcp_checksums_over_ipv6
    the_card_cuts_a_tcp_segment
    the_card_inserts_and_strips_vlan_tags
    tags_are_as_on_the_wire_where_the_card_leaves_them
    frames_of_every_length_come_in_as_they_are
    a_frame_longer_than_asked_for_is_dropped
    a_jumbo_frame_comes_in_whole
    a_pool_that_ran_dry_fills_again
    the_filter_takes_what_it_should
    promiscuous_takes_all_and_can_be_ended
    the_vlan_filter_takes_what_it_should
    what_waits_for_a_card_meets_its_filter
    counters_say_what_happened
    the_link_says_that_it_is_up_and_how_fast
    an_idle_wait_sleeps_and_a_frame_ends_it
    no_frame_is_slept_on_whenever_it_comes
    a_polled_card_has_no_interrupt
    a_stopped_card_does_not_touch_memory
    a_stopped_card_refuses_all_until_it_is_restarted
}

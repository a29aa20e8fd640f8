//! What holds of any bytes and any headers: the strict reader beside hyper, what goes on to the next hop, statistics.
//!
//! Each check is a function of bytes, so that the tests drive it with random ones and with the inputs that a fuzzer kept,
//! and the fuzzer (`tests/fuzz`) with those it thinks of.

#![cfg(test)]

mod sanitize;
mod scanner;
mod statistics;

use std::fs;

use proptest::prelude::*;

/// Runs `check` on every input that is kept for the fuzz target `name`.
fn replay(name: &str, check: fn(&[u8])) {
    let folder = format!("{}/../tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // shown if it fails
        check(&fs::read(&path).unwrap());
        replayed += 1;
    }
    assert!(replayed > 0, "{folder} is empty");
}

#[test]
fn the_kept_inputs_still_hold() {
    replay("scanner", scanner::check);
    replay("chunked", scanner::check_chunked);
    replay("sanitize", sanitize::check);
    replay("statistics", statistics::check);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_the_pieces_the_reader_is_never_laxer_than_hyper(
        seed in any::<[u8; 4]>(),
        pieces in prop::collection::vec((0..scanner::PIECES.len(), any::<u8>()), 0..24),
    ) {
        let mut bytes = seed.to_vec();
        for (piece, noise) in pieces {
            bytes.extend_from_slice(scanner::PIECES[piece]);
            if noise < 8 {
                bytes.push(noise.wrapping_mul(37)); // now and then a byte that belongs nowhere
            }
        }
        scanner::check(&bytes);
    }

    #[test]
    fn whatever_a_chunked_body_is_made_of_it_ends_where_hyper_has_it_end(
        seed in any::<[u8; 4]>(),
        pieces in prop::collection::vec(prop::sample::select(scanner::CHUNKS), 0..16),
    ) {
        scanner::check_chunked(&[&seed[..], &pieces.concat()].concat());
    }

    #[test]
    fn no_header_map_smuggles_anything_to_the_next_hop(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        sanitize::check(&bytes);
    }

    #[test]
    fn any_statistics_are_refused_or_sound(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        statistics::check(&bytes);
    }
}

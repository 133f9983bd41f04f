//! Rendezvous hashing: assigns keys to members evenly, and moves only a departed or added member's
//! share when the members change.
//!
//! Weights are XXH3-64 of `KEY MEMBER`: the same in every process and version, so processes that
//! know the same members agree without talking to each other. Neither keys nor members may contain
//! a space.

use std::{cmp::Reverse, fmt::Display};

use xxhash_rust::xxh3::xxh3_64;

/// Returns the weight of a member for a key; the member with the highest weight owns the key.
pub fn weight(key: impl Display, member: impl Display) -> u64 {
    xxh3_64(format!("{key} {member}").as_bytes())
}

/// Returns the index of the member that owns `key`; `None` without members.
pub fn owner<M: Display>(key: impl Display, members: impl IntoIterator<Item = M>) -> Option<usize> {
    let members = members.into_iter().enumerate();
    // Of equal weights the first wins, as in `order`.
    let heaviest = members.min_by_key(|(_, member)| Reverse(weight(&key, member)));
    heaviest.map(|(index, _)| index)
}

/// Returns the indices of all members, in descending order of their weights for `key`.
pub fn order<M: Display>(key: impl Display, members: &[M]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_cached_key(|index| Reverse(weight(&key, &members[*index])));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_evenly_regardless_of_the_order_of_members() {
        let (one, other) = (["a", "b", "c"], ["c", "a", "b"]);
        let mut counts = [0; 3];
        for key in 0..3000 {
            let index = owner(key, one).unwrap();
            counts[index] += 1;
            assert_eq!(one[index], other[owner(key, other).unwrap()]);
            assert_eq!(order(key, &one)[0], index);
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn an_added_member_takes_its_share_and_moves_no_other_key() {
        let moved = (0..3000).filter(|key| owner(key, 0..2) != owner(key, 0..3));
        let moved: Vec<usize> = moved.filter_map(|key| owner(key, 0..3)).collect();
        assert!((900..1100).contains(&moved.len()), "{}", moved.len());
        assert!(moved.iter().all(|index| *index == 2));
    }

    #[test]
    fn weights_are_the_same_in_every_version() {
        assert_eq!(weight("shop", "project-1"), xxh3_64(b"shop project-1"));
        assert_eq!(owner("shop", [""; 0]), None);
    }
}

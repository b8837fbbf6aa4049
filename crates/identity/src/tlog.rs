//! A log as a Merkle tree (RFC 6962, section 2.1) in tiles, as C2SP `tlog-tiles` lays them out, and its size and root as C2SP
//! `tlog-checkpoint` writes them.
//!
//! A tile has up to 256 hashes of one level, and is one hash of the level that is eight higher. Everything is a function of the entries:
//! whoever has them can make tiles, roots and proofs, and whoever has a checkpoint can check them.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::BASE64;

/// SHA-256 of a leaf or a node.
pub type Hash = [u8; 32];

/// Hashes of a whole tile.
pub const TILE_WIDTH: u64 = 256;
/// Bytes of an entry: its length is written in two.
pub const ENTRY_BYTES_MAX: usize = 0xffff;

/// The hash of an entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = Hash::default();
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// The right edge of a tree: the fewest whole subtrees that make it up, the largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edge(Vec<(u32, Hash)>);

impl Edge {
    /// Adds a whole subtree of this height; none that is there may be lower.
    pub fn push(&mut self, height: u32, hash: Hash) {
        let mut whole = (height, hash);
        while let Some((_, left)) = self.0.pop_if(|(height, _)| *height == whole.0) {
            whole = (whole.0 + 1, node_hash(&left, &whole.1));
        }
        self.0.push(whole);
    }

    /// The root; of no entry it is the hash of nothing.
    pub fn root(&self) -> Hash {
        let hashes = || self.0.iter().rev().map(|(_, hash)| *hash);
        hashes().reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(|| sha256(&[]))
    }
}

/// The root over hashes that are all of one level.
pub fn root(hashes: &[Hash]) -> Hash {
    let mut edge = Edge::default();
    hashes.iter().for_each(|hash| edge.push(0, *hash));
    edge.root()
}

/// What shows that leaf `index` is one of these: RFC 6962, 2.1.1. `None`: there is no such leaf.
pub fn inclusion(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    leaves.get(index)?;
    if leaves.len() == 1 {
        return Some(Vec::new());
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, beside) = match index.checked_sub(left.len()) {
        Some(index) => (inclusion(right, index)?, left),
        None => (inclusion(left, index)?, right),
    };
    proof.push(root(beside));
    Some(proof)
}

/// What shows that these go on from their first `old`: RFC 6962, 2.1.2. `None`: there are fewer, or `old` is none.
pub fn consistency(leaves: &[Hash], old: usize) -> Option<Vec<Hash>> {
    (1..=leaves.len()).contains(&old).then(|| subproof(leaves, old, true))
}

fn subproof(leaves: &[Hash], old: usize, is_known: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if is_known { Vec::new() } else { vec![root(leaves)] };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, beside) = match old.checked_sub(left.len()) {
        Some(old) if old > 0 => (subproof(right, old, false), left),
        _ => (subproof(left, old, is_known), right),
    };
    proof.push(root(beside));
    proof
}

/// The largest power of two below a length of two or more.
fn split(length: usize) -> usize {
    length.next_power_of_two() / 2
}

/// Whether a proof leads from a leaf to the root of a tree: RFC 9162, 2.1.3.2.
pub fn includes((index, leaf): (u64, Hash), size: u64, proof: &[Hash], root: &Hash) -> bool {
    let Some(mut last) = size.checked_sub(1).filter(|last| index <= *last) else { return false };
    let (mut at, mut hash) = (index, leaf);
    for beside in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(beside, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether a proof shows that the newer tree goes on from the older: RFC 9162, 2.1.4.2.
pub fn is_consistent((old, old_root): (u64, &Hash), (size, root): (u64, &Hash), proof: &[Hash]) -> bool {
    if old == size {
        return proof.is_empty() && old_root == root;
    }
    if old == 0 || old > size {
        return false;
    }
    // A whole subtree is its own first step.
    let first = old.is_power_of_two().then_some(*old_root);
    let mut steps = first.into_iter().chain(proof.iter().copied());
    let Some(seed) = steps.next() else { return false };
    let (mut at, mut last) = (old - 1, size - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut older, mut newer) = (seed, seed);
    for beside in steps {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            older = node_hash(&beside, &older);
            newer = node_hash(&beside, &newer);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            newer = node_hash(&newer, &beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && older == *old_root && newer == *root
}

/// A resource of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Hashes of this level, 0 to [`LEVEL_MAX`]; `None`: entries.
    pub level: Option<u8>,
    /// Which one, from the left.
    pub number: u64,
    /// How many it has, 1 to 256.
    pub width: u64,
}

impl Tile {
    /// The index of its first hash or entry, on its level; `None`: no log is so long.
    pub fn first(&self) -> Option<u64> {
        self.number.checked_mul(TILE_WIDTH)
    }

    /// Whether a log of this size has all of it.
    pub fn is_in(&self, size: u64) -> bool {
        let on_level = size.checked_shr(8 * u32::from(self.level.unwrap_or(0))).unwrap_or(0);
        let end = self.first().and_then(|first| first.checked_add(self.width));
        end.is_some_and(|end| end <= on_level)
    }

    /// Every tile of a log of this size, its last ones in part.
    pub fn all(size: u64) -> impl Iterator<Item = Tile> {
        let of = move |level: Option<u8>| {
            let hashes = size.checked_shr(8 * u32::from(level.unwrap_or(0))).unwrap_or(0);
            let width = move |number: u64| (hashes - number * TILE_WIDTH).min(TILE_WIDTH);
            (0..hashes.div_ceil(TILE_WIDTH)).map(move |number| Tile { level, number, width: width(number) })
        };
        std::iter::once(None).chain((0..=LEVEL_MAX).map(Some)).flat_map(of)
    }

    /// Reads what follows `tile/`; the same tile has no other path.
    pub fn parse(path: &str) -> Option<Tile> {
        let (level, rest) = path.split_once('/')?;
        let level = match level {
            "entries" => None,
            level => Some(level.parse().ok().filter(|level| *level <= LEVEL_MAX)?),
        };
        let (numbers, width) = match rest.split_once(".p/") {
            Some((numbers, width)) => (numbers, width.parse().ok().filter(|width| *width < TILE_WIDTH)?),
            None => (rest, TILE_WIDTH),
        };
        let mut number: u64 = 0;
        for group in numbers.split('/').map(|group| group.strip_prefix('x').unwrap_or(group)) {
            let group = group.parse::<u64>().ok().filter(|_| group.len() == 3)?;
            number = number.checked_mul(1000)?.checked_add(group)?;
        }
        let tile = Tile { level, number, width };
        (width > 0 && tile.to_string() == format!("tile/{path}")).then_some(tile)
    }
}

/// Its path: `tile/0/x001/234.p/7`, `tile/entries/000`.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            Some(level) => write!(f, "tile/{level}/")?,
            None => f.write_str("tile/entries/")?,
        }
        let mut above: Vec<u64> = Vec::new();
        let mut left = self.number;
        while left >= 1000 {
            above.push(left % 1000);
            left /= 1000;
        }
        above.push(left);
        for (left, group) in above.iter().enumerate().rev() {
            if left > 0 { write!(f, "x{group:03}/")? } else { write!(f, "{group:03}")? }
        }
        if self.width < TILE_WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// Entries as a bundle has them, each with its length in two bytes before it. `None`: one is too long.
pub fn bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut bundle = Vec::new();
    for entry in entries {
        bundle.extend_from_slice(&u16::try_from(entry.len()).ok()?.to_be_bytes());
        bundle.extend_from_slice(entry);
    }
    Some(bundle)
}

/// Size and root of a log, as its key signs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log, by the name of its key.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

impl Checkpoint {
    /// The text of the note.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, BASE64.encode(&self.root))
    }

    /// Reads the text of a note, without the extensions that a log may write behind it and ours does not.
    pub fn from_text(text: &str) -> Option<Checkpoint> {
        let mut lines = text.lines();
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let root = BASE64.decode(root.as_bytes()).ok()?.try_into().ok()?;
        let checkpoint = Checkpoint { origin: origin.to_owned(), size: size.parse().ok()?, root };
        (checkpoint.to_text() == text).then_some(checkpoint)
    }
}

/// C2SP tlog-tiles has levels up to 63; on the eighth there is a tile for every log that can be counted.
pub const LEVEL_MAX: u8 = 7;

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|index| leaf_hash(index.to_string().as_bytes())).collect()
    }

    /// RFC 6962, 2.1, as it is written.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [leaf] => *leaf,
            leaves => {
                let (left, right) = leaves.split_at(split(leaves.len()));
                node_hash(&by_definition(left), &by_definition(right))
            }
        }
    }

    #[test]
    fn hashes_are_those_of_rfc_6962() {
        let hex = |hash: Hash| HEXLOWER.encode(&hash);
        assert_eq!(hex(root(&[])), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }

    #[test]
    fn paths_are_one_for_each_tile() {
        for (path, level, number, width) in [
            ("0/000", Some(0), 0, 256),
            ("0/x001/x234/067", Some(0), 1_234_067, 256),
            ("1/005.p/7", Some(1), 5, 7),
            ("entries/x001/000.p/255", None, 1000, 255),
        ] {
            let tile = Tile { level, number, width };
            assert_eq!(Tile::parse(path), Some(tile), "{path}");
            assert_eq!(tile.to_string(), format!("tile/{path}"));
        }
        for path in [
            "",
            "0",
            "0/0",
            "0/0000",
            "00/000",
            "8/000",
            "0/x000/001",
            "0/001/002",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/07",
            "0/+12",
            "data/000",
            "0/x999/x999/x999/x999/x999/x999/x999/999",
            "0/000/",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    #[test]
    fn a_log_has_the_tiles_that_its_size_says() {
        let all = |size| Tile::all(size).map(|tile| tile.to_string()).collect::<Vec<_>>();
        assert_eq!(all(0), Vec::<String>::new());
        assert_eq!(all(1), ["tile/entries/000.p/1", "tile/0/000.p/1"]);
        assert_eq!(
            all(257),
            ["tile/entries/000", "tile/entries/001.p/1", "tile/0/000", "tile/0/001.p/1", "tile/1/000.p/1"]
        );
        assert!(Tile::all(70_000).all(|tile| tile.is_in(70_000)));
        assert!(!Tile { level: Some(2), number: 0, width: 2 }.is_in(70_000));
        assert!(!Tile { level: None, number: u64::MAX, width: 1 }.is_in(u64::MAX));
    }

    #[test]
    fn a_checkpoint_has_one_text() {
        let checkpoint = Checkpoint { origin: "example.org/ledger".to_owned(), size: 7, root: [9; 32] };
        let text = checkpoint.to_text();
        assert_eq!(Checkpoint::from_text(&text), Some(checkpoint));
        for other in
            [text.replace("\n7", "\n07"), format!("{text}more\n"), text.trim_end().to_owned(), String::new()]
        {
            assert_eq!(Checkpoint::from_text(&other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn proofs_hold_and_no_other_does(size in 1usize..600, old in any::<prop::sample::Index>(), place in any::<prop::sample::Index>()) {
            let leaves = leaves(size);
            let (old, index) = (old.index(size) + 1, place.index(size));
            let root = root(&leaves);
            prop_assert_eq!(root, by_definition(&leaves));
            let proof = inclusion(&leaves, index).unwrap();
            let leaf = (index as u64, leaves[index]);
            prop_assert!(includes(leaf, size as u64, &proof, &root));
            prop_assert!(!includes((leaf.0, leaf_hash(b"x")), size as u64, &proof, &root));
            if let Some(other) = leaves.get(index + 1) {
                prop_assert!(!includes((leaf.0 + 1, *other), size as u64, &proof, &root) || leaves.len() == 1);
            }
            let grown = consistency(&leaves, old).unwrap();
            let (then, now) = ((old as u64, &by_definition(&leaves[..old])), (size as u64, &root));
            prop_assert!(is_consistent(then, now, &grown));
            prop_assert!(!is_consistent((then.0, &[1; 32]), now, &grown));
            prop_assert!(!is_consistent(then, (now.0, &[1; 32]), &grown));
            let mut longer = grown.clone();
            longer.push([0; 32]);
            prop_assert!(!is_consistent(then, now, &longer));
            if let Some(first) = grown.first() {
                let mut other = grown.clone();
                other[0] = node_hash(first, first);
                prop_assert!(!is_consistent(then, now, &other));
                prop_assert!(!is_consistent(then, now, &grown[1..]));
            }
        }

        #[test]
        fn an_edge_of_tiles_and_leaves_has_the_root_of_all(size in 0usize..2000) {
            let leaves = leaves(size);
            let mut edge = Edge::default();
            let tiles = leaves.chunks_exact(256);
            let left = tiles.remainder();
            tiles.for_each(|tile| edge.push(8, root(tile)));
            left.iter().for_each(|leaf| edge.push(0, *leaf));
            prop_assert_eq!(edge.root(), root(&leaves));
        }

        #[test]
        fn any_path_and_any_proof_is_answered(
            path in "(entries|[0-9]{1,2})/[x0-9/.p]{0,24}",
            numbers in any::<[u64; 3]>(),
            proof in prop::collection::vec(any::<[u8; 32]>(), 0..70),
        ) {
            if let Some(tile) = Tile::parse(&path) {
                prop_assert_eq!(tile.to_string(), format!("tile/{path}"));
                tile.is_in(numbers[0]);
            }
            let _ = includes((numbers[0], [1; 32]), numbers[1], &proof, &[2; 32]);
            let _ = is_consistent((numbers[0], &[1; 32]), (numbers[1], &[2; 32]), &proof);
            let _ = Checkpoint::from_text(&path);
        }
    }
}

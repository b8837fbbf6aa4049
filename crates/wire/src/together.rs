//! Statements that are signed together: one signature for all of them, and with each what shows that it is one of them.
//!
//! They are the leaves of the Merkle tree of RFC 9162, section 2.1, and its root is what is signed. A statement by itself is a
//! tree of one leaf. Leaves and nodes are hashed apart, so that nobody can show a node as a statement; what a device learns of
//! the others are hashes of statements that name streams it cannot guess.

use assay_evidence::HashAlgorithm;

/// SHA-256.
pub const HASH_BYTES: usize = 32;

type Hash = [u8; HASH_BYTES];

/// The tree over some statements.
#[derive(Debug)]
pub struct Tree {
    /// Leaves first, the root last.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    /// Over these, in this order; `None`: there are none.
    pub fn over<'a>(statements: impl IntoIterator<Item = &'a [u8]>) -> Option<Tree> {
        let leaves: Vec<Hash> = statements.into_iter().map(leaf).collect();
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|below| below.len() > 1) {
            let above = below.chunks(2).map(|pair| match pair {
                [left, right] => node(left, right),
                // The last without a neighbour stands for itself.
                rest => rest.first().copied().unwrap_or_default(),
            });
            levels.push(above.collect());
        }
        levels.last().is_some_and(|top| !top.is_empty()).then_some(Tree { levels })
    }

    /// What is signed.
    pub fn root(&self) -> Hash {
        self.levels.last().and_then(|top| top.first()).copied().unwrap_or_default()
    }

    /// What leads from a statement to the root: its neighbours on each level, one after the other.
    pub fn path(&self, index: usize) -> Vec<u8> {
        let beside =
            self.levels.iter().enumerate().filter_map(|(height, level)| level.get((index >> height) ^ 1));
        beside.flatten().copied().collect()
    }
}

/// The root of the tree in which a statement is leaf `index` of `size`; `None`: nothing leads there. RFC 9162, 2.1.3.2.
pub fn root(statement: &[u8], index: u32, size: u32, path: &[u8]) -> Option<Hash> {
    let (mut at, mut last) = (index, size.checked_sub(1)?);
    let (beside, rest) = path.as_chunks::<HASH_BYTES>();
    if at > last || !rest.is_empty() {
        return None;
    }
    let mut hash = leaf(statement);
    for beside in beside {
        if last == 0 {
            return None;
        }
        if at & 1 == 1 || at == last {
            hash = node(beside, &hash);
            // Levels on which it had no neighbour.
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node(&hash, beside);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(hash)
}

fn leaf(statement: &[u8]) -> Hash {
    sha256(&[&[0], statement])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(HashAlgorithm::Sha256.hash(parts).as_bytes());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(count: u8) -> Vec<Vec<u8>> {
        (0..count).map(|number| vec![number; usize::from(number) + 1]).collect()
    }

    fn tree(statements: &[Vec<u8>]) -> Tree {
        Tree::over(statements.iter().map(Vec::as_slice)).unwrap()
    }

    #[test]
    fn each_statement_leads_to_the_root_from_its_place_alone() {
        for size in 1..40u8 {
            let statements = statements(size);
            let tree = tree(&statements);
            for (index, statement) in (0..).zip(&statements) {
                let path = tree.path(usize::from(index));
                let found = |at: u8| root(statement, at.into(), size.into(), &path);
                assert_eq!(found(index), Some(tree.root()), "{index} of {size}");
                for other in (0..size).filter(|other| *other != index) {
                    assert_ne!(found(other), Some(tree.root()), "{index} as {other} of {size}");
                }
            }
        }
    }

    #[test]
    fn another_statement_or_path_leads_elsewhere() {
        let statements = statements(5);
        let tree = tree(&statements);
        let path = tree.path(2);
        let check = |statement: &[u8], index, size, path: &[u8]| {
            assert_ne!(root(statement, index, size, path), Some(tree.root()));
        };
        check(&statements[1], 2, 5, &path);
        check(&statements[2], 5, 5, &path);
        check(&statements[2], 2, 0, &path);
        check(&statements[2], 2, 5, &path[HASH_BYTES..]);
        check(&statements[2], 2, 5, &path[1..]);
        check(&statements[2], 2, 5, &[path.as_slice(), &[0; HASH_BYTES]].concat());
        check(&statements[2], 0, 1, &[]);
        for at in 0..path.len() {
            let mut path = path.clone();
            path[at] ^= 1;
            check(&statements[2], 2, 5, &path);
        }
        // The node above the first two is no statement.
        let above = [leaf(&statements[0]), leaf(&statements[1])].concat();
        check(&above, 0, 2, &tree.path(0)[HASH_BYTES..]);
        check(&[[1].as_slice(), &above].concat(), 0, 3, &tree.path(0)[HASH_BYTES..]);
    }

    #[test]
    fn the_tree_is_that_of_the_standard() {
        assert!(Tree::over([]).is_none());
        let statements = statements(3);
        let tree = tree(&statements);
        let [one, two, three] = [0, 1, 2].map(|at: usize| leaf(&statements[at]));
        assert_eq!(tree.root(), node(&node(&one, &two), &three));
        assert_eq!(tree.path(0), [two, three].concat());
        assert_eq!(tree.path(2), node(&one, &two));
        // RFC 9162, 2.1.1: a leaf has a zero before it, a node a one.
        assert_eq!(leaf(b""), sha256(&[&[0]]));
        assert_eq!(node(&one, &two), sha256(&[&[1], &one, &two]));
    }
}

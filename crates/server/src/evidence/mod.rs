//! Evidence that is kept: so that a device need not tell it twice, and so that it can be judged again.

pub(crate) mod keeper;
mod piece;

pub use piece::{Piece, PieceError};

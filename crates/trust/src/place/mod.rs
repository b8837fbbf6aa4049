//! Where a device may be: areas in coordinates, and what a position has to show to count.
//!
//! [`Fence::judge`] holds what a device states of its place against a policy's regions and areas. A position is a circle, so that the
//! answer is inside, outside or uncertain, with the metres that are left. What is denied comes before what is allowed. Start reading at
//! `fence.rs`; `area.rs` and `geometry.rs` are what policies write, `outline.rs` is what is computed with.

mod area;
mod assurance;
mod fence;
mod geometry;
mod hours;
mod outline;
#[cfg(test)]
mod tests;

pub use area::{Area, AreaError, CIRCLE_METRES_MAX, Circle, POINTS_MAX, Shape};
pub use assurance::Assurance;
pub use fence::{Admitted, Fence, Refused, Seen, Stands, Uncertain};
pub(crate) use fence::{Demands, Fenced};
pub use geometry::{Geometry, GeometryError, Polygon, Ring, Vertex};
pub use hours::{Day, Hours, HoursError};

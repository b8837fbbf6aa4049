//! The doors for Keylime's agents, as one that pushes comes to them, and every way to lie there.

mod agent;
mod lies;
mod life;
mod tenant;

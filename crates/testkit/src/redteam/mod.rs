//! An attacker model: machines that boot in every common way, what somebody really changed on one of them, and every
//! way to make its evidence look like a good machine's.
//!
//! The TPM is honest: PCRs only extend, and a quote signs what they hold. What ran is measured as honest hardware
//! measures it, before it runs. All else is the attacker's: what is extended once his code runs, what the log says as
//! long as it replays, which list and which banks are sent. Start with [`Installation`] for a machine,
//! [`Deviation`] for what is changed on it, [`Scene`] for one boot and [`Step`] for one lie about it.

mod blindness;
mod deviation;
mod event;
mod installation;
mod list;
mod measured_boot;
mod random;
mod scene;
mod step;

pub use blindness::Blindness;
pub use deviation::Deviation;
pub use event::BootEvent;
pub use installation::{BootPath, FirmwareStyle, GrubStep, Installation};
pub use random::Random;
pub use scene::{Scene, Submission};
pub use step::{Step, Words};

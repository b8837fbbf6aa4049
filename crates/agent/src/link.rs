//! What an attached device can do: sign, and speak with its server.

use tokio::sync::watch;

use crate::device::Device;
use crate::upstream::Client;

/// An attached device.
#[derive(Clone)]
pub struct Link {
    /// The TPM.
    pub device: Device,
    /// The connection.
    pub client: Client,
    /// The device's SPIFFE ID.
    pub device_id: String,
}

/// The link of the moment; `None` while the device is not attached.
pub type Linked = watch::Receiver<Option<Link>>;

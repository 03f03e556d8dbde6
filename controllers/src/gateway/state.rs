//! What the gateway tells the rest of its process.

/// What the gateway of this process knows. Empty where another process leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayState {
    /// This process owns the gateway.
    pub leads: bool,
    /// A subscription to Mesos stands.
    pub subscribed: bool,
    /// The master's address, as it tells it.
    pub master: Option<String>,
    /// Who we are to Mesos.
    pub framework_id: Option<String>,
    /// Which store this is, as tasks carry it in their labels.
    pub cluster_id: Option<String>,
    /// Instances that wait for an offer.
    pub waiting: usize,
    /// Tasks that run under our framework id and of which the store knows nothing. They are left alone.
    pub unknown: Vec<UnknownTask>,
    /// Why nothing is killed at present: the store is older than what runs.
    pub quarantine: Option<String>,
    /// Why Mesos can't be reached, or will have nothing to do with us.
    pub trouble: Option<String>,
}

/// A task of which the store knows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTask {
    /// Its id.
    pub task_id: String,
    /// Where it runs.
    pub agent_id: Option<String>,
    /// What Mesos says of it, as in `TASK_RUNNING`.
    pub state: String,
    /// It was launched by a later state of the store than the present one.
    pub ahead: bool,
}

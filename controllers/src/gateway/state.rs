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
    /// Tasks that run under our framework id and whose ids are none of ours; unknown ones of pods are in the store. They
    /// are left alone.
    pub foreign: Vec<UnknownTask>,
    /// Why Mesos does not tell which tasks run: until it does, nothing is killed.
    pub unchecked: Option<String>,
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
}

//! The scenarios, one concept a file. Each says in its name what it is about, not what should come of it:
//! that is what the real master says.

mod drain;
mod failover;
mod loss;
mod maintenance;
mod offers;
mod operator;
mod pipeline;
mod reservations;
mod subscriptions;
mod tasks;
mod validation;
mod words;

use std::pin::Pin;

pub use failover::{after, before, operators_after, operators_before};

use super::stage::Stage;

/// What is played on a stage.
pub type Play = for<'a> fn(&'a mut Stage) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A scenario with its name.
pub type Scenario = (&'static str, Play);

/// Lists functions of this form: `async fn name(stage: &mut Stage)`.
macro_rules! scenarios {
    ($($module:ident: $($name:ident),* $(,)?;)*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), |stage| Box::pin($module::$name(stage)))),*),*]
    };
}

/// Against masters with two agents on which nothing is launched.
pub const MASTER: &[Scenario] = scenarios! {
    pipeline:
        methods_and_paths,
        content_types,
        bodies,
        accepted_types,
        parts_of_calls,
        framework_ids_of_calls,
        stream_ids,
        a_framework_that_is_away;
    subscriptions:
        first_events,
        roles_and_capabilities,
        ids,
        times_and_filters,
        offer_constraints,
        the_latest_wins,
        a_framework_that_comes_back,
        completed_frameworks,
        changes_at_a_subscription,
        update_framework;
    offers:
        their_form,
        their_form_without_capabilities,
        declined_and_filtered,
        suppressed_and_revived,
        roles_of_revive_and_suppress,
        removed_roles,
        accepted_for_nothing,
        invalid_offers,
        one_call_for_two_agents,
        not_our_offers;
    validation:
        tasks,
        checks,
        commands_and_containers,
        resources,
        executors,
        groups,
        launches,
        operations;
    reservations:
        made_and_undone,
        refused,
        principals;
    words:
        kill,
        acknowledge,
        reconcile,
        reconcile_without_partition_aware,
        message_request_shutdown,
        operations_of_others;
    operator:
        forms,
        queries,
        state,
        roles,
        teardown,
        agents_marked_gone;
    maintenance:
        words,
        older_endpoints,
        offers_and_inverse_offers,
        a_subscription_that_is_taken_over,
        whom_it_does_not_concern;
    drain:
        agents_without_tasks;
};

/// Against clusters of one agent that runs what is launched, by the same executor.
pub const AGENT: &[Scenario] = scenarios! {
    tasks:
        one_that_ends_well,
        one_that_fails_and_its_group,
        killed,
        shut_down_with_their_executor,
        unacknowledged_and_asked_for,
        used_ids,
        executor_ids_of_executors_that_ended,
        as_operators_see_them;
    reservations:
        a_volume_outlives_its_tasks;
    drain:
        tasks_on_a_drained_agent;
};

/// Against clusters of five agents, of which each scenario loses one: in this order.
pub const LOSS: &[Scenario] = scenarios! {
    loss:
        an_agent_that_is_cut_off,
        an_agent_that_is_cut_off_without_partition_aware,
        an_agent_that_is_marked_gone;
    drain:
        an_agent_that_is_to_be_gone;
    maintenance:
        an_agent_that_is_taken_down;
};

/// The one that spans a restart of the master and its agent.
pub const FAILOVER: &str = "failover::a_master_that_was_killed";

/// Another one, on clusters of five agents.
pub const OPERATORS: &str = "failover::what_operators_have_said";

//! A role that Mesos refuses keeps its own pods waiting, and nobody else's.

use podium_proto::records::Queue;

use super::*;

fn team() -> PodId {
    PodId::new("/team/x").unwrap()
}

impl World {
    /// One instance of another pod, in this role, that waits.
    fn with_team(&mut self) {
        let json = br#"{"id":"/team/x","role":"team","containers":[{"name":"c","exec":{"command":{"shell":"x"}},"resources":{"cpus":0.1,"mem":32}}]}"#;
        let definition = read(json, &Reading::default()).unwrap().definition;
        let mut view = PodView::new(team());
        let stored = StoredDefinition::known(Bytes::from_static(json), Arc::new(definition));
        view.versions.insert(Version::from_millis(CONFIG), held(stored, 1));
        view.accepted = Some(held(Accepted { config_ms: CONFIG, version_ms: CONFIG, ..Accepted::default() }, 1));
        let instance = Instance { config_ms: CONFIG, goal: Goal::Running.into(), incarnation: 1, ..Instance::default() };
        view.instances.insert(uuid(50), held(instance, self.revision));
        self.core.pod_changed(&team(), Some(&view), self.revision, self.now);
        self.settle();
    }

    fn answer_roles(&mut self, answer: Result<(), &str>) {
        self.core.roles_answered(answer.map_err(str::to_owned), self.now);
        self.settle();
    }

    fn queue_of_team(&self) -> Option<Queue> {
        let (_, group) = self.writes.iter().find(|(token, _)| *token == Token::Queue(team()))?;
        let Some(Op::PutLeased(_, bytes, _)) = group.ops.first() else { return None };
        Some(<Queue as prost::Message>::decode(bytes.clone()).unwrap())
    }
}

fn update(roles: &[&str], suppressed: &[&str]) -> Call {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Call::UpdateRoles { roles: names(roles), suppressed: names(suppressed) }
}

#[test]
fn a_refused_role_keeps_its_pods_waiting_with_mesos_words_and_nobody_else() {
    let mut world = World::running();
    world.with_team();
    assert_eq!(world.calls(), [update(&["*", "team"], &["*"])], "what is suppressed stays so, and nothing is revived yet");
    world.answer_roles(Err("Role 'team' is not in the whitelist"));
    world.at(NOW + 2_000);
    let queue = world.queue_of_team().expect("why it waits, after two seconds");
    assert_eq!((queue.waiting, queue.role_refused.as_str()), (1, "Role 'team' is not in the whitelist"));
    assert_eq!(world.calls(), [], "no offers are asked for in a role that is not ours");
    assert_eq!(world.core.roles_to_subscribe(), ["*"], "the next subscription is not refused for it");

    world.writes.clear();
    world.instance(2, Some(Goal::Running), 1);
    assert_eq!(world.calls(), [Call::Revive(vec!["*".into()])]);
    world.offer(2);
    world.commit();
    assert!(world.calls().iter().any(|call| matches!(call, Call::Accept { .. })), "the others are launched");

    world.at(NOW + 60_000);
    assert!(world.calls().contains(&update(&["*", "team"], &["*"])), "from time to time it is asked for again");
    world.answer_roles(Ok(()));
    assert_eq!(world.calls(), [Call::Revive(vec!["team".into()])]);
    assert_eq!(world.core.roles_to_subscribe(), ["*", "team"]);
}

#[test]
fn a_subscription_without_roles_grows_into_those_that_mesos_grants() {
    let mut world = World::new(Settings::default());
    world.instance(1, Some(Goal::Running), 1);
    world.with_team();
    assert_eq!(world.core.roles_to_subscribe(), ["*", "team"]);
    // Both at once were refused.
    world.core.subscribed(None, &[], &[], world.now);
    world.settle();
    world.survey(Ok(Vec::new()));
    let update_calls = |world: &mut World| {
        let calls = world.calls().into_iter().filter(|call| matches!(call, Call::UpdateRoles { .. } | Call::Revive(_)));
        calls.collect::<Vec<_>>()
    };
    assert_eq!(update_calls(&mut world), [update(&["*", "team"], &[])]);
    world.answer_roles(Err("no"));
    assert_eq!(update_calls(&mut world), [update(&["*"], &[])], "each half by itself");
    world.answer_roles(Ok(()));
    assert_eq!(update_calls(&mut world), [update(&["*", "team"], &[]), Call::Revive(vec!["*".into()])]);
    world.answer_roles(Err("Role 'team' is not in the whitelist"));
    assert_eq!(update_calls(&mut world), []);
    assert_eq!(world.core.roles_to_subscribe(), ["*"]);
}

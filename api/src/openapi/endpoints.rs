//! Every path that the server knows, what it takes and what it answers: one table for the document, and for the names by
//! which the router counts its answers.

/// A path of the API.
pub struct Endpoint {
    /// As the document and the metrics name it: `/v2/pods/{id}::status`.
    pub path: &'static str,
    /// By method. What knows GET knows HEAD.
    pub operations: &'static [Operation],
}

/// What one method does with a path.
pub struct Operation {
    /// `GET`.
    pub method: &'static str,
    /// In a sentence.
    pub summary: &'static str,
    /// What may stand in the query.
    pub query: &'static [Query],
    /// What the body is.
    pub takes: Takes,
    /// What it answers when all is well.
    pub answers: &'static [(u16, &'static str, Content)],
    /// With which status it refuses, each with a [`Content::One`]`("Problem")`.
    pub refusals: &'static [u16],
}

/// Something in the query.
pub struct Query {
    /// Its name.
    pub name: &'static str,
    /// In a sentence.
    pub about: &'static str,
    /// What it may be.
    pub values: Values,
}

/// What a parameter may be.
pub enum Values {
    /// The word `true`, or anything else, which is false.
    Flag,
    /// Any text.
    Text,
    /// One of these.
    Words(&'static [&'static str]),
    /// A whole number.
    Integer {
        /// At least.
        min: i64,
    },
}

/// What a body is.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// There is none.
    Nothing,
    /// A pod's definition.
    Definition,
    /// The same, whose id the path says.
    Change,
    /// A list of ids.
    Ids,
    /// What is to become of unknown instances.
    Order,
    /// Anything.
    Anything,
}

/// What an answer holds.
pub enum Content {
    /// No body.
    Nothing,
    /// One of the document's schemas.
    One(&'static str),
    /// An array of them.
    Many(&'static str),
    /// An array of times.
    Times,
    /// JSON of any kind.
    Json,
    /// Text.
    Text,
    /// What the client asked for.
    JsonOrText,
    /// Server-Sent Events, without an end.
    Events,
}

impl Content {
    /// Whether it is JSON and nothing else.
    pub fn is_json(&self) -> bool {
        matches!(self, Self::One(_) | Self::Many(_) | Self::Times | Self::Json)
    }
}

/// The route of a name, which must be in the table: in a constant, the compiler finds the one that is not.
pub const fn documented(route: &'static str) -> &'static str {
    let mut at = 0;
    while at < ENDPOINTS.len() {
        if same(ENDPOINTS[at].path, route) {
            return route;
        }
        at += 1;
    }
    panic!("this route is not in the table of the OpenAPI document")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

const FORCE: Query =
    Query { name: "force", about: "`true` supersedes a deployment of the pod that is still running.", values: Values::Flag };
const STRICT: Query = Query { name: "strict", about: "`true` refuses fields that Podium does not know.", values: Values::Flag };
const DRY_RUN: Query = Query { name: "dryRun", about: "`true`: tell what would happen, and change nothing.", values: Values::Flag };
const WIPE: Query =
    Query { name: "wipe", about: "`true`: the instance goes for good, and another takes its place under a new id.", values: Values::Flag };
const TRIAL: (u16, &str, Content) = (200, "What would happen, for `dryRun`.", Content::One("Trial"));
const EMBED: Query = Query {
    name: "embed",
    about: "`group.apps`, `group.pods` or `group.groups`, any number of times; without it all of them.",
    values: Values::Text,
};

/// Of a read that asks the store nothing about a pod.
const READ: &[u16] = &[400, 401, 403, 421, 503];
/// Of a read about one pod.
const OF_A_POD: &[u16] = &[400, 401, 403, 404, 421, 422, 503];
/// Of a change of one pod.
const CHANGE: &[u16] = &[400, 401, 403, 404, 409, 412, 421, 422, 503];
/// Of a change that has a body.
const CHANGE_WITH_BODY: &[u16] = &[400, 401, 403, 404, 408, 409, 412, 413, 415, 421, 422, 503];

const fn get(
    summary: &'static str,
    query: &'static [Query],
    answers: &'static [(u16, &'static str, Content)],
    refusals: &'static [u16],
) -> Operation {
    Operation { method: "GET", summary, query, takes: Takes::Nothing, answers, refusals }
}

/// All of them.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/v2/pods",
        operations: &[
            get("Every pod's definition.", &[], &[(200, "The definitions in force.", Content::Many("AnsweredPod"))], READ),
            Operation {
                method: "HEAD",
                summary: "Are pods supported?",
                query: &[],
                takes: Takes::Nothing,
                answers: &[(200, "They are.", Content::Nothing)],
                refusals: READ,
            },
            Operation {
                method: "POST",
                summary: "Creates a pod.",
                query: &[FORCE, STRICT, DRY_RUN],
                takes: Takes::Definition,
                answers: &[(201, "The pod's definition, with every default.", Content::One("AnsweredPod")), TRIAL],
                refusals: CHANGE_WITH_BODY,
            },
        ],
    },
    Endpoint {
        path: "/v2/pods/::status",
        operations: &[get("Every pod's status.", &[], &[(200, "The statuses.", Content::Many("PodStatus"))], READ)],
    },
    Endpoint {
        path: "/v2/pods/{id}",
        operations: &[
            get(
                "A pod's definition.",
                &[],
                &[
                    (200, "The definition in force.", Content::One("AnsweredPod")),
                    (304, "It is what `If-None-Match` names.", Content::Nothing),
                ],
                OF_A_POD,
            ),
            Operation {
                method: "PUT",
                summary: "Changes a pod, or creates it.",
                query: &[FORCE, STRICT, DRY_RUN],
                takes: Takes::Change,
                answers: &[(200, "The pod's definition, with every default; for `dryRun` what would happen.", Content::One("PodOrTrial"))],
                refusals: CHANGE_WITH_BODY,
            },
            Operation {
                method: "DELETE",
                summary: "Stops a pod and forgets it.",
                query: &[FORCE, DRY_RUN],
                takes: Takes::Nothing,
                answers: &[(202, "It is gone for readers; its instances are being stopped.", Content::Nothing), TRIAL],
                refusals: CHANGE,
            },
        ],
    },
    Endpoint {
        path: "/v2/pods/{id}::status",
        operations: &[get("A pod's status.", &[], &[(200, "The status.", Content::One("PodStatus"))], OF_A_POD)],
    },
    Endpoint {
        path: "/v2/pods/{id}::versions",
        operations: &[get("When a pod changed.", &[], &[(200, "Time stamps, oldest first.", Content::Times)], OF_A_POD)],
    },
    Endpoint {
        path: "/v2/pods/{id}::versions/{version}",
        operations: &[get(
            "A pod's definition as of a version, also of a deleted pod.",
            &[],
            &[(200, "The definition.", Content::One("AnsweredPod"))],
            OF_A_POD,
        )],
    },
    Endpoint {
        path: "/v2/pods/{id}::instances",
        operations: &[Operation {
            method: "DELETE",
            summary: "Kills instances; each is launched again under its id.",
            query: &[WIPE],
            takes: Takes::Ids,
            answers: &[(200, "Those that there are, as they were.", Content::Many("Instance"))],
            refusals: &[400, 401, 403, 404, 408, 413, 415, 421, 422, 503],
        }],
    },
    Endpoint {
        path: "/v2/pods/{id}::instances/{instance}",
        operations: &[Operation {
            method: "DELETE",
            summary: "Kills an instance; it is launched again under its id.",
            query: &[WIPE],
            takes: Takes::Nothing,
            answers: &[(200, "The instance as it was.", Content::One("Instance"))],
            refusals: OF_A_POD,
        }],
    },
    Endpoint {
        path: "/v2/pods/{id}::logs",
        operations: &[get(
            "What one container of one instance has printed: a part of the file.",
            &[
                Query { name: "instance", about: "Whose; may be left out if the pod has one.", values: Values::Text },
                Query { name: "container", about: "Whose; may be left out if the pod has one.", values: Values::Text },
                Query { name: "stream", about: "`stdout`, or the other.", values: Values::Words(&["stdout", "stderr"]) },
                Query { name: "previous", about: "`true`: of the launch before the last.", values: Values::Flag },
                Query { name: "offset", about: "The first byte; below zero: from the end.", values: Values::Integer { min: i64::MIN } },
                Query { name: "length", about: "Bytes at most.", values: Values::Integer { min: 0 } },
            ],
            &[(200, "The part.", Content::Text)],
            &[400, 401, 403, 404, 421, 422, 502, 503],
        )],
    },
    Endpoint {
        path: "/v2/deployments",
        operations: &[get("What is on its way.", &[], &[(200, "The running deployments.", Content::One("Deployments"))], READ)],
    },
    Endpoint {
        path: "/v2/deployments/{id}",
        operations: &[Operation {
            method: "DELETE",
            summary: "Takes a deployment back by another one; with `force` it only ends.",
            query: &[Query { name: "force", about: "`true`: nothing is rolled back.", values: Values::Flag }],
            takes: Takes::Nothing,
            answers: &[
                (200, "The deployment that leads back.", Content::One("Rollback")),
                (202, "It has ended; the definition in force stays.", Content::Nothing),
            ],
            refusals: &[400, 401, 403, 404, 409, 421, 503],
        }],
    },
    Endpoint {
        path: "/v2/queue",
        operations: &[get(
            "What waits for its launch, and why.",
            &[Query { name: "embed", about: "`lastUnusedOffers` adds the latest offers that were of no use.", values: Values::Text }],
            &[(200, "The queue.", Content::One("Queue"))],
            READ,
        )],
    },
    Endpoint {
        path: "/v2/queue/{id}/delay",
        operations: &[Operation {
            method: "DELETE",
            summary: "Forgets a pod's back-off.",
            query: &[],
            takes: Takes::Nothing,
            answers: &[(204, "What waited it out waits for an offer.", Content::Nothing)],
            refusals: &[400, 401, 403, 404, 421, 503],
        }],
    },
    Endpoint {
        path: "/v2/events",
        operations: &[get(
            "What happens, as it happens: Server-Sent Events, without an end; the header `Last-Event-ID` takes a stream up where it broke off.",
            &[Query { name: "event_type", about: "Events of this kind alone; any number of times.", values: Values::Text }],
            &[(200, "The stream.", Content::Events)],
            &[400, 401, 403, 406, 421, 503],
        )],
    },
    Endpoint {
        path: "/v2/groups",
        operations: &[get("The tree that the ids of pods span.", &[EMBED], &[(200, "The root.", Content::One("Group"))], READ)],
    },
    Endpoint {
        path: "/v2/groups/{id}",
        operations: &[get(
            "The tree that the ids of pods span, below a group.",
            &[EMBED],
            &[(200, "The group.", Content::One("Group"))],
            OF_A_POD,
        )],
    },
    Endpoint {
        path: "/v2/info",
        operations: &[get("What the server tells about itself.", &[], &[(200, "Version, leader, settings.", Content::One("Info"))], READ)],
    },
    Endpoint {
        path: "/v2/leader",
        operations: &[
            get("Who talks to Mesos.", &[], &[(200, "Its address.", Content::One("Leader"))], &[400, 401, 403, 404, 421, 503]),
            Operation {
                method: "DELETE",
                summary: "Makes the leader step down.",
                query: &[],
                takes: Takes::Nothing,
                answers: &[(200, "It stands for election again, behind the others.", Content::One("Abdication"))],
                refusals: &[400, 401, 403, 404, 421, 422, 503],
            },
        ],
    },
    Endpoint {
        path: "/v2/podium/unknown",
        operations: &[get(
            "Instances that run and of which the store has no record.",
            &[],
            &[(200, "They, the quarantine, and orders that are not carried out yet.", Content::One("Unknown"))],
            READ,
        )],
    },
    Endpoint {
        path: "/v2/podium/refused",
        operations: &[get(
            "Definitions that were put straight into the store and refused.",
            &[],
            &[(200, "They, each with every error, and with the version that is in force instead.", Content::Many("Refused"))],
            READ,
        )],
    },
    Endpoint {
        path: "/v2/podium/orders",
        operations: &[Operation {
            method: "POST",
            summary: "Says what is to become of unknown instances.",
            query: &[],
            takes: Takes::Order,
            answers: &[(202, "The orders; each is gone from `/v2/podium/unknown` when it is carried out.", Content::One("Orders"))],
            refusals: &[400, 401, 403, 404, 408, 409, 413, 415, 421, 422, 503],
        }],
    },
    Endpoint { path: "/v2/apps", operations: &[get("Apps: there are none.", &[], &[(200, "An empty list.", Content::One("Apps"))], READ)] },
    Endpoint {
        path: "/v2/apps/{id}",
        operations: &[
            get(
                "An app: there is none.",
                &[],
                &[(200, "An empty list, of `<group>/*`.", Content::One("Apps"))],
                &[400, 401, 403, 404, 421, 503],
            ),
            Operation {
                method: "DELETE",
                summary: "An app: there is none.",
                query: &[],
                takes: Takes::Nothing,
                answers: &[(200, "An empty list, of `<group>/*`.", Content::One("Apps"))],
                refusals: &[401, 403, 404, 421],
            },
        ],
    },
    Endpoint {
        path: "/v2/tasks",
        operations: &[get("Tasks of apps: there are none.", &[], &[(200, "An empty list.", Content::JsonOrText)], READ)],
    },
    Endpoint {
        path: "/v2/tasks/delete",
        operations: &[Operation {
            method: "POST",
            summary: "Kills tasks of apps: there are none.",
            query: &[],
            takes: Takes::Anything,
            answers: &[(200, "An empty list.", Content::One("Tasks"))],
            refusals: &[400, 401, 403, 408, 413, 415, 421],
        }],
    },
    Endpoint {
        path: "/v2/plugins",
        operations: &[get("Plugins: there are none.", &[], &[(200, "An empty list.", Content::One("Plugins"))], READ)],
    },
    Endpoint { path: "/v2/openapi.json", operations: &[get("This document.", &[], &[(200, "OpenAPI 3.1.", Content::Json)], READ)] },
    Endpoint {
        path: "/ping",
        operations: &[get(
            "Is anybody there?",
            &[],
            &[(200, "`pong`, as JSON or text.", Content::JsonOrText), (204, "To who accepts neither.", Content::Nothing)],
            READ,
        )],
    },
    Endpoint { path: "/livez", operations: &[get("Does the process run?", &[], &[(200, "`ok`.", Content::Text)], READ)] },
    Endpoint {
        path: "/readyz",
        operations: &[get("Has it read the store?", &[], &[(200, "`ok`, or `degraded` and why.", Content::Text)], READ)],
    },
    Endpoint {
        path: "/metrics",
        operations: &[get(
            "The server's measurements.",
            &[],
            &[(200, "Prometheus' text, or JSON for who accepts no text.", Content::JsonOrText)],
            READ,
        )],
    },
    Endpoint {
        path: "/metrics/prometheus",
        operations: &[get("The server's measurements.", &[], &[(200, "Prometheus' text.", Content::Text)], READ)],
    },
];

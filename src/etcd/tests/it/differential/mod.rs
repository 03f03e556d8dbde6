//! Random sequences of operations, run against this server and against a real etcd, must come out the same: bodies,
//! revisions, error codes and texts, event streams, and the hash of the whole history.
//!
//! One etcd serves all cases, since it takes long to start; revisions and ids in a case are relative to where the case
//! begins, and each case begins with an empty keyspace. After a difference both servers are made anew, so that the
//! shrinking of that case is sound.

mod case;
mod pair;
mod watching;

use proptest::test_runner::{Config, TestError, TestRunner};

use case::{Case, case};
use pair::Pair;

/// About 15 s on two cores.
const CASES: u32 = 120;

#[test]
fn random_operations_come_out_as_in_a_real_etcd() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config { cases: CASES, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let pair = std::cell::RefCell::new(None);
    let outcome = TestRunner::new(config).run(&case(), |case: Case| {
        let mut pair = pair.borrow_mut();
        let result = runtime.block_on(async {
            if pair.is_none() {
                *pair = Some(Pair::start().await);
            }
            pair.as_mut().expect("just started").run(&case).await
        });
        result.map_err(|difference| {
            *pair = None;
            proptest::test_runner::TestCaseError::fail(difference)
        })
    });
    drop(pair);
    match outcome {
        Err(TestError::Fail(difference, case)) => panic!("{difference}\n in {case:?}"),
        other => other.unwrap(),
    }
}

//! What is computed, how often, and for whom: hashes are counted, and time comes in as a parameter.

use super::*;

use crate::auth::password::Secret;

/// By htpasswd, of `PASSWORD`.
const BCRYPT: &str = "$2a$04$7m3MoFcHJFiOsfgdDuoNs.ioKApoWwYB0pb6ubv0OwJRzbnIgEuTy";
/// The same password again.
const CHANGED: &str = "$2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci";
const PASSWORD: &str = "correct horse battery staple";

/// A file with these hashes.
fn users(hashes: impl IntoIterator<Item = String>) -> Arc<Users> {
    let lines = hashes.into_iter().enumerate();
    let lines: Vec<_> = lines.map(|(at, hash)| format!("user{at}:{hash}\n")).collect();
    Arc::new(Users::parse(lines.concat().as_bytes()))
}

struct Scene {
    passwords: Passwords,
    stored: Arc<Stored>,
    start: Instant,
}

impl Scene {
    fn new() -> Self {
        Self::with_turns(2, 100)
    }

    fn with_turns(turns: usize, queue: usize) -> Self {
        let passwords = Passwords::with_turns(turns, queue).unwrap();
        let stored = Arc::new(Stored::parse(BCRYPT).unwrap());
        passwords.imitate(&users([BCRYPT.to_owned()]));
        Self {
            passwords,
            stored,
            start: Instant::now(),
        }
    }

    async fn ask(&self, name: &str, password: &str, from: &str, seconds: u64) -> Verdict {
        let stored = (name == "alice").then_some(&self.stored);
        self.ask_of(name, password, stored, from, seconds).await
    }

    async fn ask_of(
        &self,
        name: &str,
        password: &str,
        stored: Option<&Arc<Stored>>,
        from: &str,
        seconds: u64,
    ) -> Verdict {
        let from = Some(from.parse().unwrap());
        let now = self.start + Duration::from_secs(seconds);
        self.passwords.check(name, password, stored, from, now).await
    }

    /// So many different wrong ones.
    async fn guess(&self, name: &str, count: usize, from: &str, seconds: u64) {
        for guess in 0..count {
            let guess = format!("guess {guess} at {seconds}");
            assert_eq!(self.ask(name, &guess, from, seconds).await, Verdict::Wrong);
        }
    }

    fn computed(&self) -> u64 {
        self.passwords.shared.computed.load(Ordering::Relaxed)
    }
}

fn waits(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Throttled { retry_after } if !retry_after.is_zero())
}

const HERE: &str = "192.0.2.1";
const THERE: &str = "198.51.100.1";

#[tokio::test]
async fn a_right_one_is_remembered_for_five_minutes() {
    let scene = Scene::new();
    for (seconds, computed) in [
        (0, 1),
        (0, 1),
        (100, 1),
        (299, 1),
        (302, 2),
        (303, 2),
        (600, 2),
        (700, 3),
    ] {
        let from = if seconds % 2 == 0 { HERE } else { THERE };
        assert_eq!(scene.ask("alice", PASSWORD, from, seconds).await, Verdict::Right);
        assert_eq!(scene.computed(), computed, "at {seconds}");
    }
}

#[tokio::test]
async fn a_wrong_one_is_remembered_for_a_minute_and_counts_once() {
    let scene = Scene::new();
    for _ in 0..100 {
        assert_eq!(scene.ask("alice", "wrong", HERE, 0).await, Verdict::Wrong);
    }
    assert_eq!(scene.computed(), 1);
    assert_eq!(scene.ask("alice", "wrong", HERE, 59).await, Verdict::Wrong);
    assert_eq!(scene.computed(), 1);
    assert_eq!(scene.ask("alice", "wrong", HERE, 62).await, Verdict::Wrong);
    assert_eq!(scene.computed(), 2);
    assert_eq!(scene.ask("alice", PASSWORD, HERE, 62).await, Verdict::Right);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_cost_one() {
    let scene = Scene::new();
    let asked = (0..50).map(|host| {
        let from = format!("192.0.2.{host}");
        let scene = &scene;
        async move { scene.ask("alice", PASSWORD, &from, 0).await }
    });
    let verdicts = futures_util::future::join_all(asked).await;
    assert!(verdicts.into_iter().all(|verdict| verdict == Verdict::Right));
    assert_eq!(scene.computed(), 1);
}

#[tokio::test]
async fn who_asks_and_leaves_ends_nothing() {
    let scene = Scene::with_turns(1, 10);
    let turn = scene.passwords.shared.turns.acquire().await.unwrap();
    {
        let asked = scene.ask("alice", PASSWORD, HERE, 0);
        tokio::select! {
            biased;
            _ = asked => panic!("without a turn"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(turn);
    assert_eq!(scene.ask("alice", PASSWORD, HERE, 0).await, Verdict::Right);
    assert_eq!(scene.computed(), 1);
}

#[tokio::test]
async fn an_unknown_name_costs_and_answers_like_a_wrong_password() {
    let known = Scene::new();
    let unknown = Scene::new();
    for scene in [&known, &unknown] {
        let name = if std::ptr::eq(scene, &raw const known) {
            "alice"
        } else {
            "nobody"
        };
        scene.guess(name, 5, HERE, 0).await;
        assert_eq!(scene.computed(), 5);
        assert!(waits(scene.ask(name, "another", HERE, 0).await));
        assert_eq!(scene.computed(), 5);
        // What was wrong before is known without looking.
        assert_eq!(scene.ask(name, "guess 1 at 0", HERE, 0).await, Verdict::Wrong);
        assert_eq!(scene.computed(), 5);
    }
    // Not even with the password of whoever it is compared with.
    assert_eq!(unknown.ask("someone", PASSWORD, THERE, 0).await, Verdict::Wrong);
    assert_eq!(unknown.computed(), 6);
}

#[tokio::test]
async fn an_unknown_name_is_always_compared_with_the_same_one() {
    let scene = Scene::new();
    let shared = &scene.passwords.shared;
    let known: Vec<_> = (0..3000)
        .map(|number| BCRYPT.replacen("7m3M", &format!("{number:04}"), 1))
        .collect();
    let key = |name: &str| shared.mac(&[b"name", name.as_bytes()]);
    let names: Vec<_> = (0..200).map(|number| format!("name {number}")).collect();
    let decoys = || {
        names
            .iter()
            .map(|name| shared.decoy(&key(name)))
            .collect::<Vec<_>>()
    };
    scene.passwords.imitate(&users(known.iter().cloned()));
    let first = decoys();
    // The same file in another order.
    let again = users(known.into_iter().rev());
    scene.passwords.imitate(&again);
    assert_eq!(first, decoys());
    assert!(again.samples().len() <= 1000);
    let different: std::collections::HashSet<_> = first.iter().map(|decoy| decoy.as_str()).collect();
    assert!(different.len() > 100, "{}", different.len());
    // Those of our own are among them, and alone where the file has none, or secrets only.
    let ours = first.iter().filter(|decoy| decoy.kind() == "argon2id").count();
    assert!((20..90).contains(&ours), "{ours}");
    scene
        .passwords
        .imitate(&users([Stored::digest("secret").to_string()]));
    assert!(decoys().iter().all(|decoy| decoy.kind() == "argon2id"));
}

#[tokio::test]
async fn who_guesses_waits_and_is_not_even_looked_at() {
    let scene = Scene::new();
    scene.guess("alice", 5, HERE, 0).await;
    let verdict = scene.ask("alice", PASSWORD, HERE, 0).await;
    assert!(waits(verdict), "{verdict:?}");
    assert_eq!(scene.computed(), 5);
    // Elsewhere, and for another name, nobody waits.
    assert_eq!(scene.ask("bob", "wrong", HERE, 0).await, Verdict::Wrong);
    assert_eq!(scene.ask("alice", "wrong", THERE, 0).await, Verdict::Wrong);
    // After it the right one is right, and clears the account.
    assert_eq!(scene.ask("alice", PASSWORD, HERE, 3).await, Verdict::Right);
    scene.guess("alice", 5, HERE, 4).await;
    assert!(waits(scene.ask("alice", "another", HERE, 4).await));
    // Whoever has it right goes on while somebody guesses from the same address.
    let before = scene.computed();
    for _ in 0..100 {
        assert_eq!(scene.ask("alice", PASSWORD, HERE, 4).await, Verdict::Right);
    }
    assert_eq!(scene.computed(), before);
}

#[tokio::test]
async fn what_was_right_within_a_day_is_no_guess() {
    let scene = Scene::new();
    assert_eq!(scene.ask("alice", PASSWORD, HERE, 0).await, Verdict::Right);
    for seconds in [1000, 2000, 50_000, 100_000] {
        scene.guess("alice", 5, HERE, seconds).await;
        assert!(waits(scene.ask("alice", "another", HERE, seconds).await));
        let before = scene.computed();
        assert_eq!(scene.ask("alice", PASSWORD, HERE, seconds).await, Verdict::Right);
        assert_eq!(scene.computed(), before + 1);
    }
    // A day without it, and it has to wait like any other.
    scene.guess("alice", 5, HERE, 200_000).await;
    assert!(waits(scene.ask("alice", PASSWORD, HERE, 200_000).await));
}

#[tokio::test]
async fn a_changed_or_removed_password_is_not_remembered() {
    let scene = Scene::new();
    assert_eq!(scene.ask("alice", PASSWORD, HERE, 0).await, Verdict::Right);
    let removed = scene.ask_of("alice", PASSWORD, None, HERE, 1).await;
    assert_eq!(removed, Verdict::Wrong);
    assert_eq!(scene.computed(), 2);
    let changed = Arc::new(Stored::parse(CHANGED).unwrap());
    let verdict = scene.ask_of("alice", PASSWORD, Some(&changed), HERE, 2).await;
    assert_eq!(verdict, Verdict::Right);
    assert_eq!(scene.computed(), 3);
    // And a password of one name is not one of another.
    let verdict = scene.ask_of("bob", PASSWORD, None, HERE, 2).await;
    assert_eq!(verdict, Verdict::Wrong);
}

#[tokio::test]
async fn a_secret_of_ours_is_right_at_once_and_wrong_like_any_other() {
    let scene = Scene::new();
    let (secret, stored) = Secret::make().unwrap();
    let stored = Arc::new(stored);
    scene.guess("robot", 5, HERE, 0).await;
    for _ in 0..10 {
        let verdict = scene
            .ask_of("robot", secret.as_str(), Some(&stored), HERE, 0)
            .await;
        assert_eq!(verdict, Verdict::Right);
    }
    assert_eq!(scene.computed(), 5);
    let verdict = scene.ask_of("robot", "wrong", Some(&stored), HERE, 0).await;
    assert!(waits(verdict));
    let verdict = scene.ask_of("robot", "wrong", Some(&stored), THERE, 0).await;
    assert_eq!(verdict, Verdict::Wrong);
    assert_eq!(scene.computed(), 6);
}

#[tokio::test]
async fn guesses_at_once_do_not_get_past_the_throttle() {
    let scene = Scene::with_turns(1, 100);
    let shared = &scene.passwords.shared;
    let turn = shared.turns.acquire().await.unwrap();
    let ask = |guess: usize, from: &'static str| {
        let (passwords, stored, start) = (scene.passwords.clone(), scene.stored.clone(), scene.start);
        tokio::spawn(async move {
            let guess = format!("guess {guess}");
            let from = Some(from.parse().unwrap());
            passwords.check("alice", &guess, Some(&stored), from, start).await
        })
    };
    // All of them pass the first look.
    let mut asked: Vec<_> = (0..40).map(|guess| ask(guess, HERE)).collect();
    while shared.queue.available_permits() > 101 - 40 {
        tokio::task::yield_now().await;
    }
    // Somebody elsewhere tries one of them too, and joins it.
    let elsewhere = ask(39, THERE);
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    drop(turn);
    let mut wrong = 0;
    for asked in asked.drain(..) {
        match asked.await.unwrap() {
            Verdict::Wrong => wrong += 1,
            verdict => assert!(waits(verdict)),
        }
    }
    assert_eq!(wrong, 5);
    // That one had no reason to wait.
    assert_eq!(elsewhere.await.unwrap(), Verdict::Wrong);
    assert_eq!(scene.computed(), 6);
    assert_eq!(shared.queue.available_permits(), 101);
}

#[tokio::test]
async fn too_many_at_once_are_sent_away_and_nobody_is_blamed() {
    let scene = Scene::with_turns(1, 0);
    let shared = &scene.passwords.shared;
    let turn = shared.turns.acquire().await.unwrap();
    let first = tokio::spawn({
        let (passwords, stored, start) = (scene.passwords.clone(), scene.stored.clone(), scene.start);
        async move {
            passwords
                .check("alice", PASSWORD, Some(&stored), None, start)
                .await
        }
    });
    while shared.queue.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    for guess in 0..100 {
        let verdict = scene.ask("bob", &format!("guess {guess}"), HERE, 0).await;
        assert_eq!(verdict, Verdict::Throttled { retry_after: BUSY });
    }
    // The same once more waits with the first.
    let joined = scene
        .passwords
        .check("alice", PASSWORD, Some(&scene.stored), None, scene.start);
    drop(turn);
    assert_eq!(joined.await, Verdict::Right);
    assert_eq!(first.await.unwrap(), Verdict::Right);
    assert_eq!(scene.computed(), 1);
    assert_eq!(scene.ask("bob", "guess 1", HERE, 0).await, Verdict::Wrong);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let scene = Scene::new();
    let shared = &scene.passwords.shared;
    for number in 0..MOST_WRONG * 2 {
        let fingerprint = shared.mac(&[&number.to_be_bytes()]);
        shared.wrong.insert(fingerprint, scene.start);
        shared.right.insert(fingerprint, scene.start);
    }
    shared.wrong.run_pending_tasks();
    assert!(shared.wrong.entry_count() <= MOST_WRONG);
    // Those who guess cannot push out what is right.
    shared.right.run_pending_tasks();
    assert_eq!(shared.right.entry_count(), MOST_RIGHT);
}

#[test]
fn a_fingerprint_is_of_its_parts_and_of_this_process() {
    let one = Passwords::new().unwrap();
    let other = Passwords::new().unwrap();
    let of = |passwords: &Passwords, parts: &[&[u8]]| passwords.shared.mac(parts);
    assert_eq!(of(&one, &[b"ab", b"c"]), of(&one, &[b"ab", b"c"]));
    assert_ne!(of(&one, &[b"ab", b"c"]), of(&one, &[b"a", b"bc"]));
    assert_ne!(of(&one, &[b"abc"]), of(&other, &[b"abc"]));
}

//! A login by itself, with time under control: renewal before the end, setting aside and coming back, files that change.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::{CredentialOrder, Credentials};
use crate::upstream::logins::Left;
use crate::upstream::logins::{Logins, Wish};

const MINUTE: Duration = Duration::from_mins(1);

fn login(kind: CredentialKind) -> Arc<Login> {
    let credential = Credential {
        name: "ci".to_owned(),
        kind,
        written: crate::config::Written::default(),
    };
    let web = || Err("no web".to_owned());
    Arc::new(Login::new("test".into(), &credential, Arc::new(()), Offline::default(), web).unwrap())
}

fn password() -> Arc<Login> {
    login(Credential::password(Credentials::new("ci", "p")).kind)
}

fn token_file(path: &Path) -> Arc<Login> {
    login(CredentialKind::TokenFile {
        path: path.to_owned(),
    })
}

async fn header(login: &Arc<Login>) -> String {
    match &*login.given().await.unwrap().unwrap() {
        Grant::Basic(header) | Grant::Bearer(header) => header.to_str().unwrap().to_owned(),
        Grant::Identity(token) => token.expose().to_owned(),
    }
}

/// Whether the pool would use the login now.
fn is_used(pool: &Logins) -> bool {
    let repository = "a".parse().unwrap();
    let wish = Wish {
        repository: &repository,
        counted: true,
        tried: &[],
    };
    !pool.choose(&wish, |_| Left::Unknown).unwrap().makeshift
}

#[tokio::test(start_paused = true)]
async fn a_rejected_login_is_tried_again_by_one_request_after_longer_and_longer() {
    let login = password();
    let pool = Logins::new("test".into(), vec![login.clone()], CredentialOrder::First);
    let grant = login.given().await.unwrap().unwrap();
    let almost = Duration::from_secs(1);
    for minutes in [1, 2, 4, 8, 10, 10] {
        assert!(is_used(&pool));
        login.set_aside(Some(&grant), "wrong");
        // Others whose requests were on the way say the same.
        login.set_aside(Some(&grant), "wrong");
        let pause = MINUTE * minutes;
        tokio::time::advance(pause.checked_sub(almost).unwrap()).await;
        assert!(!is_used(&pool), "{minutes}");
        tokio::time::advance(almost).await;
    }
    // One request tries it, and the others do not wait for that.
    assert!(is_used(&pool) && !is_used(&pool));
    // It got lost: another may.
    tokio::time::advance(TRIAL).await;
    assert!(is_used(&pool));
    login.accepted();
    assert!(is_used(&pool) && is_used(&pool));
    login.set_aside(Some(&grant), "wrong");
    tokio::time::advance(MINUTE).await;
    assert!(is_used(&pool), "after it was good, it starts with a minute again");
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_again_after_a_while_and_after_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one\n").unwrap();
    let login = token_file(&path);
    assert_eq!(header(&login).await, "Bearer one");
    std::fs::write(&path, "two\n").unwrap();
    assert_eq!(header(&login).await, "Bearer one");
    tokio::time::advance(files::LOOK_AGAIN).await;
    assert_eq!(header(&login).await, "Bearer two");

    std::fs::write(&path, "three").unwrap();
    let two = login.given().await.unwrap().unwrap();
    assert!(login.is_renewed(&two).await);
    assert_eq!(header(&login).await, "Bearer three");
    // Nothing new, and then not asked again and again.
    tokio::time::advance(ANEW).await;
    let three = login.given().await.unwrap().unwrap();
    assert!(!login.is_renewed(&three).await);
    std::fs::write(&path, "four").unwrap();
    assert!(!login.is_renewed(&three).await);

    // A file that is gone for a moment takes nothing away.
    std::fs::remove_file(&path).unwrap();
    tokio::time::advance(files::LOOK_AGAIN).await;
    assert_eq!(header(&login).await, "Bearer three");
    assert!(login.state().aside.is_none());
}

#[tokio::test(start_paused = true)]
async fn another_secret_ends_setting_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one").unwrap();
    let login = token_file(&path);
    let pool = Logins::new("test".into(), vec![login.clone()], CredentialOrder::First);
    let one = login.given().await.unwrap().unwrap();
    login.set_aside(Some(&one), "wrong");
    assert!(!is_used(&pool));
    // Nothing changed: it was looked at, and stays aside.
    login.renew().await.unwrap();
    assert!(!is_used(&pool));
    std::fs::write(&path, "two").unwrap();
    login.renew().await.unwrap();
    assert!(is_used(&pool));
    // What is refused late of the old one does not count against the new one.
    login.accepted();
    login.set_aside(Some(&one), "wrong");
    assert!(is_used(&pool));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_asked_for_again_soon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let login = token_file(&path);
    let pool = Logins::new("test".into(), vec![login.clone()], CredentialOrder::First);
    assert!(login.given().await.unwrap_err().contains("cannot be read"));
    assert!(!is_used(&pool));
    std::fs::write(&path, "one").unwrap();
    tokio::time::advance(TROUBLE).await;
    assert!(is_used(&pool));
    assert_eq!(header(&login).await, "Bearer one");
}

/// Gives a login for an hour, another one each time.
struct Hourly {
    asked: Arc<AtomicUsize>,
    works: Arc<std::sync::atomic::AtomicBool>,
}

impl Obtain for Hourly {
    fn obtain(&self) -> BoxFuture<'_, Result<Obtained, String>> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if !self.works.load(Ordering::SeqCst) {
                return Err("down".to_owned());
            }
            Ok(Obtained {
                grant: Grant::bearer(&number.to_string()).unwrap(),
                renew_in: Some(MINUTE * 48),
                ends_in: Some(MINUTE * 59),
            })
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_is_renewed_early_and_once_for_all_who_wait() {
    let (asked, works) = (Arc::<AtomicUsize>::default(), Arc::new(true.into()));
    let hourly = Hourly {
        asked: asked.clone(),
        works: Arc::clone(&works),
    };
    let source = Source::Asked(Box::new(hourly));
    let login = Arc::new(Login::with(
        "test".into(),
        "ci".into(),
        "ecr",
        source,
        Arc::new(()),
    ));
    let all = |count: usize| {
        let login = login.clone();
        async move {
            let headers = (0..count).map(|_| header(&login));
            futures_util::future::join_all(headers).await
        }
    };
    assert!(all(20).await.iter().all(|header| header == "Bearer 1"));
    tokio::time::advance(MINUTE * 47).await;
    assert_eq!(all(1).await, ["Bearer 1"]);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Due: nobody waits while it is renewed behind.
    tokio::time::advance(MINUTE).await;
    let before = Instant::now();
    assert!(all(20).await.iter().all(|header| header == "Bearer 1"));
    assert_eq!(before.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(all(1).await, ["Bearer 2"]);
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    // A renewal that fails is tried again, a minute apart, while the old one holds.
    works.store(false, Ordering::SeqCst);
    tokio::time::advance(MINUTE * 49).await;
    for _ in 0..5 {
        assert_eq!(all(1).await, ["Bearer 2"]);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert!(login.state().aside.is_none());
    tokio::time::advance(MINUTE * 11).await;
    assert_eq!(login.given().await.unwrap_err(), "down");
    assert!(login.state().aside.is_some());

    // Refused at once by many: one asks for another.
    works.store(true, Ordering::SeqCst);
    let refused = login.given().await.unwrap().unwrap();
    let count = asked.load(Ordering::SeqCst);
    let renewed = (0..20).map(|_| login.is_renewed(&refused));
    assert!(
        futures_util::future::join_all(renewed)
            .await
            .into_iter()
            .all(|renewed| renewed)
    );
    assert_eq!(asked.load(Ordering::SeqCst), count + 1);
    assert!(login.is_renewed(&refused).await);
}

/// A helper that is this shell script.
fn helper(folder: &Path, text: &str) -> Arc<Login> {
    use std::os::unix::fs::PermissionsExt as _;
    let program = folder.join("docker-credential-test");
    std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    login(CredentialKind::Helper {
        program,
        server: "registry.example".to_owned(),
    })
}

#[tokio::test]
async fn what_helpers_say() {
    let folder = tempfile::tempdir().unwrap();
    let good = [
        (r#"echo '{"Username":"u","Secret":"p"}'"#, "Basic dTpw"),
        (
            r#"echo '{"username":"u","secret":"p","ServerURL":"x"}'"#,
            "Basic dTpw",
        ),
        (r#"echo '{"Username":"<token>","Secret":"refresh"}'"#, "refresh"),
        // What it is asked about is on stdin, and nobody minds when it is not read.
        (
            r#"printf '{"Username":"u","Secret":"%s"}' "$(cat)""#,
            "Basic dTpyZWdpc3RyeS5leGFtcGxl",
        ),
        (
            r#"exec 0<&-; head -c 100000 /dev/zero >&2; echo '{"Username":"u","Secret":"p"}'"#,
            "Basic dTpw",
        ),
    ];
    for (text, expected) in good {
        assert_eq!(header(&helper(folder.path(), text)).await, expected, "{text}");
    }
    let bad = [
        (
            "echo credentials not found in native keychain; exit 1",
            "says of registry.example: credentials not found",
        ),
        (
            "echo 'locked: hunter2'; echo 'it is locked' >&2; exit 2",
            "(exit status: 2): it is locked",
        ),
        ("echo hunter2", "something else than"),
        (r#"echo '{"Username":"u","Secret":""}'"#, "an empty secret"),
        (r#"printf '{"Username":"u","Secret":"a\\nb"}'; exit 0"#, "Basic"),
        ("kill -9 $$", "(signal: 9"),
    ];
    for (text, expected) in bad {
        let given = helper(folder.path(), text).given().await;
        match given {
            Err(why) => assert!(
                why.contains(expected) && !why.contains("hunter2"),
                "{text}: {why}"
            ),
            Ok(grant) => assert_eq!(format!("{:?}", grant.unwrap()), expected, "{text}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_helper_has_half_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let before = Instant::now();
    let why = helper(folder.path(), "exec sleep 1000")
        .given()
        .await
        .unwrap_err();
    assert!(why.contains("did not answer within 30 s"), "{why}");
    assert!(before.elapsed() < Duration::from_secs(31));
}

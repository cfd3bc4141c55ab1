//! Users of an htpasswd file: they log in by what others hashed, and are out as soon as their line is.

use super::{Login as _, basic, bearer, hosting, send, token_of};

const PASSWORD: &str = "correct horse battery staple";
/// By Apache's htpasswd, Python's bcrypt, and argon2-cffi.
const LINES: [(&str, &str); 3] = [
    (
        "apache",
        "$2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
    ),
    (
        "python",
        "$2b$10$8qs0ZjIt8fAXIYYbj0pK0OEcmDeQY9Iqtd7ZoFaBbpni7hSgPvovi",
    ),
    (
        "argon",
        "$argon2id$v=19$m=256,t=2,p=2$RjtdjxIfN3q/BNM+mgIdfg$WN3jAX/msAJO57rclpgg1v0HElOPXvPsPvDt8Q33Bes",
    ),
];
/// Somebody who stays.
const STAYING: &str = "staying:$2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci\n";

#[tokio::test]
async fn users_of_a_file_log_in_until_their_line_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("htpasswd");
    let lines: String = LINES.map(|(name, hash)| format!("{name}:{hash}\n")).concat();
    std::fs::write(&file, format!("{lines}{STAYING}")).expect("a file");
    let daemon = hosting()
        .setting("auth.htpasswd_file", &format!("{file:?}"))
        .setting("auth.anonymous", "[]")
        .setting("auth.writers", r#"["*"]"#)
        .start()
        .await;
    let query = "service=wharfinger&offline_token=true&scope=repository:team/app:pull,push";
    let renew = async |refresh: &str| {
        let form = format!("grant_type=refresh_token&refresh_token={refresh}");
        send("POST", &format!("{}/token", daemon.url()), &[], form)
            .await
            .status
    };
    let mut held = Vec::new();
    for (name, _) in LINES.into_iter().chain([("staying", "")]) {
        let right = basic(name, PASSWORD);
        assert_eq!(
            daemon.push("team/app", &basic(name, "wrong horse")).await,
            401,
            "{name}"
        );
        assert_eq!(daemon.push("team/app", &right).await, 202, "{name}");
        let answer = daemon.token(query, &right).await;
        let refresh = answer.json()["refresh_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        let token = bearer(&token_of(&answer));
        assert_eq!(daemon.push("team/app", &token).await, 202, "{name}");
        assert_eq!(renew(&refresh).await, 200, "{name}");
        held.push((name, right, token, refresh));
    }
    std::fs::write(&file, STAYING).expect("a file");
    daemon.wait_for_log("the htpasswd file was read again").await;
    for (name, right, token, refresh) in &held {
        let (push, renewed) = match *name {
            "staying" => (202, 200),
            _ => (401, 401),
        };
        assert_eq!(daemon.push("team/app", right).await, push, "{name}");
        assert_eq!(daemon.push("team/app", token).await, push, "{name}");
        assert_eq!(renew(refresh).await, renewed, "{name}");
        assert_eq!(daemon.token(query, right).await.status, renewed, "{name}");
    }
}

#[tokio::test]
async fn a_hangup_ends_nothing_and_has_the_file_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("htpasswd");
    std::fs::write(&file, STAYING).expect("a file");
    let daemon = hosting()
        .setting("auth.htpasswd_file", &format!("{file:?}"))
        .setting("auth.writers", r#"["*"]"#)
        .start()
        .await;
    let (name, hash) = LINES[0];
    assert_eq!(daemon.push("team/app", &basic(name, PASSWORD)).await, 401);
    std::fs::write(&file, format!("{STAYING}{name}:{hash}\n")).expect("a file");
    daemon.hang_up();
    daemon.wait_for_log("the htpasswd file was read again").await;
    assert_eq!(daemon.push("team/app", &basic(name, PASSWORD)).await, 202);
}

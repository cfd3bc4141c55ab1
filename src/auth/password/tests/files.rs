//! What is in an htpasswd file, and how one is kept up with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use crate::auth::password::{Htpasswd, Reason, Unusable, Users};

const ONE: &str = "$2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci";
const TWO: &str = "$2a$04$7m3MoFcHJFiOsfgdDuoNs.ioKApoWwYB0pb6ubv0OwJRzbnIgEuTy";
const DIGEST: &str = "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";

fn names(users: &Users) -> Vec<&str> {
    let mut names: Vec<_> = users.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

fn told(users: &Users) -> Vec<String> {
    users.faults().iter().map(ToString::to_string).collect()
}

#[test]
fn lines_are_read_as_apache_does() {
    let text = format!(
        "\u{feff}alice:{ONE}\r\n\n  # bob:{TWO}\n#\n \t \nbob:{TWO}:Bob, of the second floor\n  carol:{DIGEST}  \n\
         dan:{DIGEST}:a robot\nerin smith:{ONE}\nзоя:{TWO}"
    );
    let users = Users::parse(text.as_bytes());
    assert_eq!(told(&users), [""; 0]);
    assert_eq!(
        names(&users),
        ["alice", "bob", "carol", "dan", "erin smith", "зоя"]
    );
    for (name, stored) in [("alice", ONE), ("bob", TWO), ("carol", DIGEST), ("dan", DIGEST)] {
        assert_eq!(users.find(name).unwrap().as_str(), stored, "{name}");
    }
    assert!(users.find("Alice").is_none() && users.find("").is_none());
    assert!(Users::parse(b"").is_empty());
    assert_eq!(Users::parse(b"\xef\xbb\xbf\r\n"), Users::default());
}

#[test]
fn faults_are_told_by_line_and_never_show_a_password() {
    let text = format!(
        "alice:{ONE}\nhunter2\nbob:hunter2\ncarol:\n:{ONE}\na/b:{ONE}\ndan :{ONE}\nerin:$apr1$.FaJdIlI$BaD8zFFMmVMJzXKFYGMME0\n"
    );
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(b"fr\xffd:hunter2\nzoe:");
    bytes.extend_from_slice(TWO.as_bytes());
    let users = Users::parse(&bytes);
    assert_eq!(names(&users), ["alice", "zoe"]);
    let name = "a user's name is 1 to 256 characters, none of them a slash or a control character, without spaces around it";
    assert_eq!(
        told(&users),
        [
            "line 2: expected a name, a colon and a hash".to_owned(),
            format!("line 3: bob: {}", Unusable::Unknown),
            "line 4: carol: no password is set".to_owned(),
            format!("line 5: {name}"),
            format!("line 6: {name}"),
            format!("line 7: {name}"),
            "line 8: erin: MD5 is too weak: set the password again with `htpasswd -B`".to_owned(),
            "line 9: expected UTF-8".to_owned(),
        ]
    );
    assert!(!format!("{users:?}").contains("hunter2"));
    assert!(!format!("{users:?}").contains("dSTSc"));
}

#[test]
fn a_line_may_end_anywhere() {
    for hash in [ONE, DIGEST] {
        let line = format!("alice:{hash}: a comment");
        for end in 0..=line.len() {
            let users = Users::parse(&line.as_bytes()[..end]);
            let whole = end >= "alice:".len() + hash.len();
            assert_eq!(users.find("alice").is_some(), whole, "{}", &line[..end]);
            assert_eq!(users.faults().is_empty(), whole || end == 0);
        }
    }
}

#[test]
fn of_two_lines_about_one_the_last_counts() {
    let users = Users::parse(format!("alice:{ONE}\nbob:{ONE}\nalice:{TWO}\nalice:{DIGEST}\n").as_bytes());
    assert_eq!(users.find("alice").unwrap().as_str(), DIGEST);
    assert_eq!(
        told(&users),
        [
            "line 3: alice is on line 1 already: this line counts",
            "line 4: alice is on line 3 already: this line counts"
        ]
    );
    // The line that was added to lock somebody out does so.
    let users = Users::parse(format!("alice:{ONE}\nalice:!\n").as_bytes());
    assert!(users.find("alice").is_none());
    assert_eq!(users.faults().len(), 2);
}

#[test]
fn many_faults_are_told_once() {
    let users = Users::parse("nonsense\n".repeat(10_000).as_bytes());
    assert_eq!(users.faults().len(), 101);
    assert_eq!(users.faults()[100].reason, Reason::More);
}

/// A file, changed long enough ago to be believed.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("htpasswd")
    }

    fn write(&self, text: &str, seconds_ago: u64) {
        fs::write(self.path(), text).unwrap();
        self.age(seconds_ago);
    }

    #[expect(clippy::disallowed_methods, reason = "the file system's time is the system's")]
    fn age(&self, seconds_ago: u64) {
        let time = SystemTime::now() - Duration::from_secs(seconds_ago);
        fs::File::options()
            .append(true)
            .open(self.path())
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
}

#[test]
fn a_file_is_read_again_when_it_changes() {
    let scene = Scene::new();
    assert!(Htpasswd::open(scene.path()).is_err());
    scene.write(&format!("alice:{ONE}\n"), 1000);
    let file = Htpasswd::open(scene.path()).unwrap();
    assert_eq!(names(&file.users()), ["alice"]);
    assert!(!file.refresh());
    let generation = file.generation("alice").unwrap();
    assert_eq!(file.generation("bob"), None);

    // As an editor does: another file by the same name.
    let draft = scene.folder.path().join("draft");
    fs::write(&draft, format!("alice:{ONE}\nbob:{TWO}\n")).unwrap();
    fs::rename(&draft, scene.path()).unwrap();
    assert!(file.refresh());
    assert!(!file.refresh());
    assert_eq!(names(&file.users()), ["alice", "bob"]);
    assert_eq!(file.generation("alice"), Some(generation));

    // As htpasswd does: in place. The length stays the same, and the time too.
    scene.write(&format!("alice:{TWO}\nbob:{TWO}\n"), 500);
    assert!(file.refresh());
    assert_ne!(file.generation("alice"), Some(generation));
    scene.write(&format!("alice:{ONE}\nbob:{TWO}\n"), 500);
    assert!(file.refresh());
    assert_eq!(file.generation("alice"), Some(generation));

    // A mistake in it takes away whom it is about.
    scene.write(&format!("alice:{ONE}\nbob\n"), 100);
    assert!(file.refresh());
    assert_eq!(names(&file.users()), ["alice"]);
    assert_eq!(file.faults().len(), 1);
    assert_eq!(file.faults()[0].line, 2);
}

#[test]
fn two_changes_within_one_tick_are_both_seen() {
    let scene = Scene::new();
    scene.write(&format!("alice:{ONE}\n"), 0);
    let file = Htpasswd::open(scene.path()).unwrap();
    // Whatever the stamps say: the file is too young to be believed.
    scene.write(&format!("alice:{TWO}\n"), 0);
    assert!(file.refresh());
    assert!(!file.refresh());
    assert_eq!(file.find("alice").unwrap().as_str(), TWO);
}

#[test]
fn what_cannot_be_read_leaves_everything_as_it_was() {
    let scene = Scene::new();
    scene.write(&format!("alice:{ONE}\n"), 1000);
    let file = Htpasswd::open(scene.path()).unwrap();
    fs::remove_file(scene.path()).unwrap();
    for _ in 0..3 {
        assert!(!file.refresh());
        assert_eq!(names(&file.users()), ["alice"]);
    }
    fs::create_dir(scene.path()).unwrap();
    assert!(!file.refresh());
    assert_eq!(names(&file.users()), ["alice"]);
    fs::remove_dir(scene.path()).unwrap();
    scene.write(&format!("bob:{TWO}\n"), 1000);
    assert!(file.refresh());
    assert_eq!(names(&file.users()), ["bob"]);

    // Endless ones are not read, nor those that would take forever to open.
    assert!(Htpasswd::open("/dev/zero").is_err());
    fs::File::options()
        .write(true)
        .open(scene.path())
        .unwrap()
        .set_len(17 * 1024 * 1024)
        .unwrap();
    assert!(!file.refresh());
    assert_eq!(names(&file.users()), ["bob"]);
    // Nor does it matter that we may not, unless we are root, who may.
    fs::set_permissions(scene.path(), fs::Permissions::from_mode(0o000)).unwrap();
    assert!(!file.refresh());
    assert_eq!(names(&file.users()), ["bob"]);
}

#[test]
fn an_empty_file_counts_at_the_second_look() {
    let scene = Scene::new();
    scene.write(&format!("alice:{ONE}\n"), 1000);
    let file = Htpasswd::open(scene.path()).unwrap();
    scene.write("", 500);
    assert!(!file.refresh());
    assert_eq!(names(&file.users()), ["alice"]);
    scene.write(&format!("alice:{TWO}\n"), 400);
    assert!(file.refresh());
    assert_eq!(names(&file.users()), ["alice"]);
    scene.write("# nobody\n", 300);
    assert!(!file.refresh());
    assert!(file.refresh());
    assert!(!file.refresh());
    assert_eq!(names(&file.users()), [""; 0]);
    scene.write(&format!("alice:{TWO}\n"), 200);
    assert!(file.refresh());
}

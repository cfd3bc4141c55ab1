//! Files of htpasswd and the hashes in them: any bytes are read, what counts says the same when it is read alone, and no
//! fault shows a hash.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharfinger::auth::password::{Stored, Users};

fuzz_target!(|bytes: &[u8]| {
    let users = Users::parse(bytes);
    for (name, stored) in users.iter() {
        assert!(!name.contains(':') && name.trim() == name);
        let again = Stored::parse(stored.as_str()).expect("what was read once");
        assert!(again == **stored && again.generation() == stored.generation());
        assert_eq!(format!("{again:?}"), format!("Stored({})", again.kind()));
        // Not on the first line, where a byte order mark is none of the name.
        let line = format!("\n{name}:{stored}");
        assert_eq!(Users::parse(line.as_bytes()).find(name).as_ref(), Some(stored));
    }
    let lines = bytes.split(|byte| *byte == b'\n').count();
    for fault in users.faults() {
        assert!((1..=lines).contains(&fault.line) && !fault.to_string().is_empty());
    }
});

//! Which of the things that are shown count when: a token, and the login behind it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::identity::{Account, Identity, Kind};
use super::token::{KeySource, Keys, TokenError, Tokens};
use super::*;
use crate::clock::Timestamp;

struct Forgetful;

impl KeySource for Forgetful {
    fn load(&self) -> Option<Vec<u8>> {
        None
    }

    fn save(&self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// One login, or none.
struct Only(Mutex<Option<Arc<Login>>>);

impl IdentityStore for Only {
    fn find(&self, _: &str) -> Option<Arc<Login>> {
        self.0.lock().unwrap().clone()
    }

    fn is_broken(&self, _: &str) -> bool {
        false
    }

    fn access_key(&self, _: &str) -> Option<(Arc<Login>, String)> {
        None
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp((1_800_000_000 + seconds) * 1000)
}

fn ann() -> Login {
    Login {
        identity: Identity::named(Kind::User, "ann", Account::default()).unwrap(),
        password: None,
        secrets: Vec::new(),
        disabled: false,
        expires_at: None,
        generation: 1,
        documents: Vec::new(),
        scopes: None,
    }
}

#[tokio::test]
async fn what_a_token_was_shown_for_may_outlast_it_and_not_its_login() {
    let store = Arc::new(Only(Mutex::new(Some(Arc::new(ann())))));
    let tokens = Tokens::new(
        Arc::new(Keys::open(Arc::new(Forgetful), at(0)).unwrap()),
        "cache.example",
    );
    let spans = Spans {
        access: Duration::from_mins(5),
        refresh: Duration::from_hours(1),
    };
    let authenticator =
        Authenticator::new(store.clone(), None, Vec::new(), tokens, Account::default(), spans).unwrap();
    let caller = Caller {
        generation: 1,
        ..Caller::of(ann().identity)
    };
    let token = authenticator.issue(&caller, Vec::new(), false, at(0)).unwrap();
    let offered = Offered::Bearer(token.access);
    let prove = async |shown: u64, now: u64| {
        let arrival = Arrival {
            from: None,
            private: true,
            certificate: None,
            now: at(now),
            shown_at: at(shown),
        };
        authenticator.prove(&offered, arrival).await.map(drop)
    };
    assert_eq!(prove(200, 200).await, Ok(()));
    assert_eq!(prove(200, 7200).await, Ok(()), "a large blob takes its time");
    assert_eq!(prove(7200, 7200).await, Err(Unproved::Token(TokenError::Expired)));
    let others = [
        None,
        Some(Login {
            disabled: true,
            ..ann()
        }),
        Some(Login {
            expires_at: Some(at(300)),
            ..ann()
        }),
        Some(Login {
            generation: 2,
            ..ann()
        }),
    ];
    for other in others {
        *store.0.lock().unwrap() = other.map(Arc::new);
        assert_eq!(prove(200, 301).await, Err(Unproved::Token(TokenError::Void)));
    }
}

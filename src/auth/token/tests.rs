//! What counts as a token of ours, and what does not.

use std::io;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use super::*;

#[derive(Default)]
struct Memory(Mutex<Option<Vec<u8>>>);

impl KeySource for Memory {
    fn load(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }

    fn save(&self, bytes: &[u8]) -> io::Result<()> {
        *self.0.lock().unwrap() = Some(bytes.to_vec());
        Ok(())
    }
}

const DAY: Duration = Duration::from_hours(24);

fn at(seconds: u64) -> Timestamp {
    Timestamp((1_800_000_000 + seconds) * 1000)
}

fn grant(purpose: Use) -> Grant {
    let account = Account::default();
    Grant {
        identity: Identity::named(Kind::Workload, "repo:acme/app", account)
            .unwrap()
            .issued_by("https://token.example"),
        access: vec![Access {
            kind: "repository".to_owned(),
            name: "acme/app".to_owned(),
            actions: vec!["pull".to_owned(), "push".to_owned()],
        }],
        purpose,
        generation: 3,
        scopes: vec![vec!["pull:team/*".to_owned()]],
        exact: false,
    }
}

fn tokens(source: &Arc<Memory>) -> Tokens {
    let keys = Keys::open(source.clone(), at(0)).unwrap();
    Tokens::new(Arc::new(keys), "cache.example")
}

const FIVE: Duration = Duration::from_mins(5);

#[test]
fn a_token_says_what_was_granted_until_it_expires() {
    let source = Arc::new(Memory::default());
    let tokens = tokens(&source);
    let token = tokens.make(&grant(Use::Access), FIVE, at(0)).unwrap();
    for seconds in [0, 299, 329] {
        assert_eq!(
            tokens
                .verify(&token, Use::Access, at(seconds))
                .map(|(grant, _)| grant),
            Ok(grant(Use::Access))
        );
    }
    assert_eq!(
        tokens.verify(&token, Use::Access, at(330)),
        Err(TokenError::Expired)
    );
    assert_eq!(
        tokens.verify(&token, Use::Refresh, at(1)),
        Err(TokenError::Misused)
    );
    // Another process of the same folder knows it; another folder, or another service, does not.
    let again = self::tokens(&source);
    assert_eq!(
        again.verify(&token, Use::Access, at(1)).map(|(grant, _)| grant),
        Ok(grant(Use::Access))
    );
    assert_eq!(
        again.verify(&token, Use::Access, at(900)),
        Err(TokenError::Expired)
    );
    let foreign = self::tokens(&Arc::default());
    assert_eq!(
        foreign.verify(&token, Use::Access, at(1)),
        Err(TokenError::Invalid)
    );
    let keys = Keys::open(source, at(0)).unwrap();
    let other = Tokens::new(Arc::new(keys), "other.example");
    assert!(other.verify(&token, Use::Access, at(1)).is_err());
    // One that ends with what it was made of has no time beyond.
    let last = Grant {
        exact: true,
        ..grant(Use::Access)
    };
    let ending = tokens.make(&last, FIVE, at(0)).unwrap();
    assert!(tokens.verify(&ending, Use::Access, at(299)).is_ok());
    assert_eq!(
        tokens.verify(&ending, Use::Access, at(300)),
        Err(TokenError::Expired)
    );
    let future = tokens.make(&grant(Use::Access), FIVE, at(100)).unwrap();
    assert_eq!(
        tokens.verify(&future, Use::Access, at(0)),
        Err(TokenError::Invalid)
    );
}

#[test]
fn nothing_of_it_can_be_altered() {
    let tokens = tokens(&Arc::default());
    let token = tokens.make(&grant(Use::Access), FIVE, at(0)).unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let with = |header: &str, claims: &str, signature: &str| {
        let altered = format!("{header}.{claims}.{signature}");
        tokens.verify(&altered, Use::Access, at(1))
    };
    assert!(with(parts[0], parts[1], parts[2]).is_ok());
    let claims = String::from_utf8(BASE64.decode(parts[1]).unwrap()).unwrap();
    let more = BASE64.encode(claims.replace("acme/app", "acme/other"));
    assert_eq!(with(parts[0], &more, parts[2]), Err(TokenError::Invalid));
    // An algorithm of the token's own choice: none, or our public key as a password.
    let header = String::from_utf8(BASE64.decode(parts[0]).unwrap()).unwrap();
    for algorithm in ["none", "HS256", "RS256", "ES256"] {
        let header = BASE64.encode(header.replace("EdDSA", algorithm));
        for signature in ["", parts[2]] {
            assert_eq!(
                with(&header, parts[1], signature),
                Err(TokenError::Invalid),
                "{algorithm}"
            );
        }
    }
    let key = BASE64.encode(header.replace("\"kid\":\"", "\"kid\":\"x"));
    assert_eq!(with(&key, parts[1], parts[2]), Err(TokenError::Invalid));
    for nonsense in ["", ".", "..", "a.b.c", &"x".repeat(20_000)] {
        assert_eq!(
            tokens.verify(nonsense, Use::Access, at(1)),
            Err(TokenError::Invalid)
        );
    }
    // Each bit of the signature counts.
    let mut signature = BASE64.decode(parts[2]).unwrap();
    for byte in 0..signature.len() {
        signature[byte] ^= 1;
        let altered = BASE64.encode(&signature);
        assert_eq!(
            with(parts[0], parts[1], &altered),
            Err(TokenError::Invalid),
            "byte {byte}"
        );
        signature[byte] ^= 1;
    }
}

/// Whoever takes the algorithm from the token checks an HMAC with the public key, which is no secret.
#[test]
fn our_public_key_is_no_password() {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::engine::general_purpose::STANDARD;
    use jsonwebtoken::EncodingKey;

    let source = Arc::new(Memory::default());
    let tokens = tokens(&source);
    let token = tokens.make(&grant(Use::Access), FIVE, at(0)).unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&BASE64.decode(claims).unwrap()).unwrap();
    let mut header = jsonwebtoken::decode_header(&token).unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&source.load().unwrap()).unwrap();
    let kept = hex::decode(kept[0]["key"].as_str().unwrap()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(&kept).unwrap();
    let x = pair.public_key().as_ref().to_vec();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let der = der.as_ref().to_vec();
    let jwk = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#, BASE64.encode(&x));
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----",
        STANDARD.encode(&der)
    );
    let secrets = [
        BASE64.encode(&x).into_bytes(),
        STANDARD.encode(&x).into_bytes(),
        hex::encode(&x).into_bytes(),
        x,
        BASE64.encode(&der).into_bytes(),
        STANDARD.encode(&der).into_bytes(),
        der,
        format!("{pem}\n").into_bytes(),
        pem.into_bytes(),
        jwk.into_bytes(),
        Vec::new(),
    ];
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        header.alg = algorithm;
        for (number, secret) in secrets.iter().enumerate() {
            let key = EncodingKey::from_secret(secret);
            let forged = jsonwebtoken::encode(&header, &claims, &key).unwrap();
            assert_eq!(
                tokens.verify(&forged, Use::Access, at(1)),
                Err(TokenError::Invalid),
                "{algorithm:?} {number}"
            );
        }
    }
    // The same claims, signed as ours are, count.
    header.alg = Algorithm::EdDSA;
    let right = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&kept)).unwrap();
    assert!(tokens.verify(&right, Use::Access, at(1)).is_ok());
}

#[test]
fn keys_turn_and_old_ones_are_known_for_as_long_as_their_tokens_live() {
    let source = Arc::new(Memory::default());
    let keys = Arc::new(Keys::open(source.clone(), at(0)).unwrap());
    let tokens = Tokens::new(keys.clone(), "cache.example");
    let day = DAY.as_secs();
    let old = tokens.make(&grant(Use::Refresh), 9 * DAY, at(day - 1)).unwrap();
    assert!(!keys.turn(DAY, 10 * DAY, at(day - 1)).unwrap());
    assert!(keys.turn(DAY, 10 * DAY, at(day)).unwrap());
    let new = tokens.make(&grant(Use::Refresh), 9 * DAY, at(day)).unwrap();
    let id = |token: &str| jsonwebtoken::decode_header(token).unwrap().kid;
    assert_ne!(id(&old), id(&new));
    assert!(tokens.verify(&old, Use::Refresh, at(day)).is_ok());
    // After a restart too.
    let again = self::tokens(&source);
    assert!(again.verify(&old, Use::Refresh, at(day)).is_ok());
    assert!(again.verify(&new, Use::Refresh, at(day)).is_ok());
    assert!(keys.turn(1000 * DAY, 10 * DAY, at(12 * day)).unwrap());
    let fresh = Tokens::new(keys, "cache.example");
    assert_eq!(
        fresh.verify(&old, Use::Refresh, at(day)),
        Err(TokenError::Invalid)
    );
    assert!(fresh.verify(&new, Use::Refresh, at(day)).is_ok());
    // Keys that cannot be read are made anew: better no token than a forged one.
    source.save(b"nonsense").unwrap();
    let anew = self::tokens(&source);
    assert_eq!(anew.verify(&new, Use::Refresh, at(day)), Err(TokenError::Invalid));
}

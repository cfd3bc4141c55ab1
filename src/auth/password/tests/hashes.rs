//! Hashes of others are understood, weak ones are named, and ours are known again.

use crate::auth::password::{HashError, Secret, Stored, Unusable};

const PASSWORD: &str = "correct horse battery staple";

/// Kind, password, hash: by Apache's htpasswd 2.4, Python's bcrypt 5.0 and argon2-cffi 25.1.
const OTHERS: &[(&str, &str, &str)] = &[
    (
        "bcrypt",
        PASSWORD,
        "$2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
    ),
    (
        "bcrypt",
        PASSWORD,
        "$2y$06$5PhbYMvnjPwmdC1UxqUUX.AL7HjZk4eeMpCjHqlXGkSbRJ7iAqtAa",
    ),
    (
        "bcrypt",
        PASSWORD,
        "$2a$04$7m3MoFcHJFiOsfgdDuoNs.ioKApoWwYB0pb6ubv0OwJRzbnIgEuTy",
    ),
    (
        "bcrypt",
        PASSWORD,
        "$2b$10$8qs0ZjIt8fAXIYYbj0pK0OEcmDeQY9Iqtd7ZoFaBbpni7hSgPvovi",
    ),
    (
        "bcrypt",
        "пароль-ü-密码",
        "$2b$04$Zv6l8.rINGBmOAefvD2nx.w/jbJVXCC0vcZT2bWc9wtPnC3mEVyXu",
    ),
    (
        "bcrypt",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "$2b$04$p1JRwd80neKT1nVSbnsK4eTrI8Ap/3SROpeMDce7ZFrx74qH3acfS",
    ),
    (
        "argon2id",
        PASSWORD,
        "$argon2id$v=19$m=256,t=2,p=2$RjtdjxIfN3q/BNM+mgIdfg$WN3jAX/msAJO57rclpgg1v0HElOPXvPsPvDt8Q33Bes",
    ),
    (
        "argon2i",
        PASSWORD,
        "$argon2i$v=19$m=256,t=2,p=2$WNdKk24iGSMCuLfK+egXWw$Q0zCd9rp39wyxktMS9RroPaZL6VFR/21xL79gbaBj20",
    ),
    (
        "argon2d",
        PASSWORD,
        "$argon2d$v=19$m=256,t=2,p=2$gGm4H/fyToObwF+HtChG+w$WK62wEBnXbXVqLJFVhB+srLu+7bnsJUKvLajqExdpno",
    ),
    // What argon2-cffi makes without being told anything.
    (
        "argon2id",
        PASSWORD,
        "$argon2id$v=19$m=65536,t=3,p=4$ClAd1+UNJfioJCbwTO4oXA$A/+l9eydoz+MFgXrII40u5vokuNfhc2NgvGhy87FZ1I",
    ),
    (
        "argon2i",
        PASSWORD,
        "$argon2i$v=16$m=64,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$dPozAdedAnE7mVegpEbz56Bn3xHpTJSfwqL1eU47DV8",
    ),
    // The same without its version, which is the first one then.
    (
        "argon2i",
        PASSWORD,
        "$argon2i$m=64,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$dPozAdedAnE7mVegpEbz56Bn3xHpTJSfwqL1eU47DV8",
    ),
    (
        "argon2id",
        "пароль-ü-密码",
        "$argon2id$v=19$m=64,t=1,p=1$BZ3sGeYU48g4WuvVHwAENA$11OL5awseDvEt0lmz8krF2KysvuP1mzL8xyzf6CRsNY",
    ),
    (
        "argon2id",
        PASSWORD,
        "$argon2id$v=19$m=64,t=1,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
    ),
    // Of the digits 0 to 9, by sha256sum.
    (
        "sha256",
        "0123456789",
        "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882",
    ),
];

#[test]
fn hashes_of_others_are_known() {
    for (kind, password, text) in OTHERS {
        let stored = Stored::parse(text).unwrap_or_else(|unusable| panic!("{text}: {unusable}"));
        assert_eq!(stored.kind(), *kind);
        assert_eq!(stored.is_slow(), *kind != "sha256");
        assert_eq!(stored.to_string(), *text);
        assert_eq!(text.parse::<Stored>(), Ok(stored.clone()));
        assert_eq!(format!("{stored:?}"), format!("Stored({kind})"));
        assert!(stored.verify(password), "{text}");
        for other in [
            "",
            "\0",
            "correct horse battery stapl",
            &format!("{password} "),
            &format!("{password}\0"),
            &format!("{password}\0{password}"),
            &password.to_uppercase().replace(|c: char| c.is_ascii_digit(), "9"),
        ] {
            assert!(!stored.verify(other), "{text}: {other:?}");
        }
    }
}

#[test]
fn bcrypt_reads_72_bytes_and_more_are_refused() {
    // By htpasswd, of 80 letters: it ignored eight of them without a word.
    let stored = Stored::parse("$2y$05$MX6pDDinLVF2tLtOJ6.0mu2cnUY6OHI3QCIVCIzxdBnPQBxFzls8i").unwrap();
    assert_eq!(stored.longest_password(), Some(72));
    assert!(!stored.verify(&"z".repeat(80)));
    assert!(!stored.verify(&"z".repeat(73)));
    assert!(stored.verify(&"z".repeat(72)));
    let long =
        "$argon2id$v=19$m=64,t=1,p=1$KIojWNRkCghzqu7tcBz+Lg$56XYa83CSqWsAp9VOc3bnDJxabFhHZAqMDbikIBUI7U";
    let long = Stored::parse(long).unwrap();
    assert_eq!(long.longest_password(), None);
    assert!(long.verify(&"y".repeat(200)));
    assert!(!long.verify(&"y".repeat(201)));
}

#[test]
fn an_empty_password_opens_nothing() {
    for text in [
        "$2b$04$QnbT5SWglLSUXc2xEg1XTOETg8eQWV0da2B.TZ/gkxg5OtcStsHZi",
        "$argon2id$v=19$m=64,t=1,p=1$hIYIIwLwxgO3LuJV2BZ33w$WM09erRz2ZQdD7nYWMxMrwnPzFNzlADX4Fwk1vztApA",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ] {
        assert!(!Stored::parse(text).unwrap().verify(""), "{text}");
    }
    assert_eq!(Stored::hash(""), Err(HashError::Empty));
}

#[test]
fn salts_of_bcrypt_with_bits_that_mean_nothing_are_read() {
    // The last character of the salt has four bits more than it needs.
    let text = "$2a$04$7m3MoFcHJFiOsfgdDuoNs.ioKApoWwYB0pb6ubv0OwJRzbnIgEuTy";
    for last in ['/', 'A', 'M'] {
        let untidy = text.replacen("Ns.io", &format!("Ns{last}io"), 1);
        assert_ne!(untidy, text);
        assert!(Stored::parse(&untidy).unwrap().verify(PASSWORD), "{untidy}");
    }
}

#[test]
fn what_cannot_be_used_is_named_and_not_shown() {
    let cases: &[(Unusable, &[&str])] = &[
        (Unusable::Empty, &[""]),
        (
            Unusable::Md5,
            &[
                "$apr1$.FaJdIlI$BaD8zFFMmVMJzXKFYGMME0",
                "$1$abcdefgh$IQtUouv7y7Q9dRWkQEPCc.",
            ],
        ),
        (Unusable::Sha1, &["{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM="]),
        (
            Unusable::Crypt,
            &[
                "$5$keirkI8Ryaz975yA$.gFHmQ0b5O8jf5tC1/QiQbPibgS3MWBBfxIxTl9FUR1",
                "$6$abcdefgh$KQeXafAQAaOoKTevphVU215RvJdgzyfASRasIOuh12hO8u0r1bGW92ZnTmC9IjsiQ8VPiTXBiZF49dFL1U4wX/",
                "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7",
            ],
        ),
        (
            Unusable::Unknown,
            &[
                "eNx8xyq/kamok",
                "hunter2-in-plain",
                "$hunter2-in-plain",
                "$hunter2$in-plain",
                "{hunter2}",
                &"hunter2".repeat(1000),
                " $2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
            ],
        ),
        (
            Unusable::OldBcrypt,
            &[
                "$2x$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
                "$2$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
            ],
        ),
        (
            Unusable::Bcrypt,
            &[
                "$2y$",
                "$2y$05$",
                "$2y$5$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
                "$2y$+5$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
                "$2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3C",
                "$2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci=",
                "$2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3C!",
                "$2y$05$dSTSc/3KB.LKbCVMCVk3s\u{e9}e6E9EZ47cigyXk.q74dXccKywdj3Ci",
                "$2y$05$dSTSc/3KB.LKbCVMCVk3\u{1f600}e6E9EZ47cigyXk.q74dXccKywdj3C",
                "$2y$05$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci$",
            ],
        ),
        (
            Unusable::BcryptCost,
            &[
                "$2y$03$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
                "$2y$17$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
                "$2y$31$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci",
            ],
        ),
        (
            Unusable::Argon2,
            &[
                "$argon2id$",
                "$argon2id$v=19$m=64,t=1,p=1$MTIzNDU2Nzg",
                "$argon2id$v=19$m=64,t=1,p=1$MTIzNDU2Nzg$",
                "$argon2id$v=18$m=64,t=1,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=64,t=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=64,m=64,t=1,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=64,t=1,p=1,keyid=AAAA$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=+64,t=1,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=64,t=0,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=64,t=1,p=0$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=64,t=1,p=16$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=99999999999,t=1,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=64,t=1,p=1$MTIz$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=64,t=1,p=1$MTIzNDU2Nzg$eHvm",
                "$argon2id$v=19$m=64,t=1,p=1$MTIzNDU2Nzg=$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=64,t=1,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg$",
            ],
        ),
        (
            Unusable::Argon2Cost,
            &[
                "$argon2id$v=19$m=262145,t=1,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=4294967295,t=4294967295,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=262144,t=5,p=1$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
                "$argon2id$v=19$m=1024,t=1,p=17$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg",
            ],
        ),
        (
            Unusable::Sha256,
            &[
                "sha256:",
                "sha256:84d89877",
                "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f788g",
            ],
        ),
    ];
    for (expected, texts) in cases {
        for text in *texts {
            let unusable = Stored::parse(text).expect_err(text);
            assert_eq!(unusable, *expected, "{text}");
            let told = format!("{unusable} {unusable:?}");
            // A bare scheme is no secret.
            let is_bare = text.len() < 12;
            assert!(is_bare || !told.contains(text), "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
    assert!(Unusable::Md5.to_string().contains("htpasswd -B"));
    assert!(Unusable::Sha1.to_string().starts_with("{SHA} is too weak"));
}

#[test]
fn costs_up_to_the_bounds_are_read() {
    for costs in ["m=262144,t=4,p=16", "m=8,t=131072,p=1", "p=1,t=2,m=64"] {
        let text = format!("$argon2id$v=19${costs}$MTIzNDU2Nzg$eHvmTxQel6/xFPpmcLFwEg");
        assert!(Stored::parse(&text).is_ok(), "{text}");
    }
    for cost in ["04", "16"] {
        let text = format!("$2y${cost}$dSTSc/3KB.LKbCVMCVk3sele6E9EZ47cigyXk.q74dXccKywdj3Ci");
        assert!(Stored::parse(&text).is_ok(), "{text}");
    }
}

#[test]
fn our_own_are_salted_and_known_again() {
    let (one, other) = (Stored::hash(PASSWORD).unwrap(), Stored::hash(PASSWORD).unwrap());
    assert_ne!(one, other);
    assert_ne!(one.generation(), other.generation());
    assert!(one.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    let again = Stored::parse(one.as_str()).unwrap();
    assert_eq!(again, one);
    assert_eq!(again.generation(), one.generation());
    assert!(again.is_slow() && again.verify(PASSWORD) && !again.verify("another"));
    // Tokens outlive a restart, and so a new version: this number stays.
    let kept =
        Stored::parse("sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882").unwrap();
    assert_eq!(kept.generation(), GENERATION);
}

/// The first eight bytes of `printf sha256:84d8... | sha256sum`.
const GENERATION: u64 = 0x9dee_01a0_0857_a0cc;

#[test]
fn secrets_are_made_once_and_known_by_their_digest() {
    let (secret, stored) = Secret::make().unwrap();
    let (other, _) = Secret::make().unwrap();
    let text = secret.to_string();
    assert_eq!(text.len(), "whf_".len() + 43);
    assert!(text.starts_with(Secret::PREFIX));
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    );
    assert_ne!(text, other.as_str());
    assert_eq!(format!("{secret:?}"), "Secret");
    assert!(!stored.is_slow() && !stored.as_str().contains(&text));
    let kept = Stored::parse(stored.as_str()).unwrap();
    assert!(kept.verify(&text) && !kept.verify(other.as_str()) && !kept.verify(stored.as_str()));
}

//! `[[warm]]`: which lists load, and what is wrong with those that do not.

use super::*;

#[test]
fn lists_as_they_are_written() {
    let config = parse(
        "[[warm]]\nimages = [\"docker-hub/library/alpine:3.*\", \"ghcr.io/acme/base\", \"nginx:1\"]\n\
         platforms = [\"linux/amd64\", \"linux/arm64/v8\"]\nschedule = \"0 3 * * *\"\n\
         [[warm]]\nimages = [\"quay/org/app:1\"]\nevery = \"6h\"\npin = true\n",
    )
    .expect("valid");
    let [first, second] = config.warm.as_slice() else {
        panic!("{:?}", config.warm);
    };
    let images: Vec<_> = first.images.iter().map(ImagePattern::as_str).collect();
    assert_eq!(
        images,
        ["docker-hub/library/alpine:3.*", "ghcr.io/acme/base", "nginx:1"]
    );
    assert_eq!(format!("{:?}", first.platforms), "[linux/amd64, linux/arm64]");
    assert!(matches!(&first.when, When::Schedule(_)) && !first.pin);
    assert!(matches!(second.when, When::Every(every) if every == Duration::from_hours(6)) && second.pin);
    assert_eq!(second.platforms, [crate::oci::WantedPlatform::host()]);
}

#[test]
fn refresh_ahead_is_on_unless_it_is_switched_off() {
    let config =
        parse("[cache]\nrefresh_ahead = false\n[upstream.quay]\nrefresh_ahead = true\n").expect("valid");
    let is_on = |prefix: &str| config.upstream(prefix).expect("built in").refresh_ahead;
    assert_eq!((is_on("quay"), is_on("github")), (true, false));
    let default = parse("").expect("valid");
    assert!(default.upstream("quay").expect("built in").refresh_ahead);
}

#[test]
fn what_is_wrong_with_a_list() {
    let image = "images = [\"nginx\"]\n";
    let cases = [
        (
            "[warm]\nimages = [\"nginx\"]".to_owned(),
            "warm",
            "write [[warm]]",
        ),
        (
            "[[wram]]\nimages = [\"nginx\"]".to_owned(),
            "wram",
            "did you mean `warm`",
        ),
        (
            "[[warm]]\nevery = \"1h\"".to_owned(),
            "warm[1].images",
            "is required",
        ),
        (
            "[[warm]]\nimages = []\nevery = \"1h\"".to_owned(),
            "warm[1].images",
            "is empty",
        ),
        (
            "[[warm]]\nimages = \"nginx\"\nevery = \"1h\"".to_owned(),
            "warm[1].images",
            "list of strings",
        ),
        (
            "[[warm]]\nimages = [\"nginx\", \"nginx\"]\nevery = \"1h\"".to_owned(),
            "warm[1].images",
            "listed twice",
        ),
        (
            "[[warm]]\nimages = [\"quay.io/org/app:[1-9]*\"]\nevery = \"1h\"".to_owned(),
            "warm[1].images",
            "only `*` has a meaning",
        ),
        (
            "[[warm]]\nimages = [\"docker-hub/library/*\"]\nevery = \"1h\"".to_owned(),
            "warm[1].images",
            "for tags alone",
        ),
        (
            "[[warm]]\nimages = [\"registry.example/a/b\"]\nevery = \"1h\"".to_owned(),
            "warm[1].images",
            "no upstream is configured for registry.example",
        ),
        (
            "[[warm]]\nimages = [\"docker-hub\"]\nevery = \"1h\"".to_owned(),
            "warm[1].images",
            "a repository has to follow",
        ),
        (
            "[upstream.quay]\nenabled = false\n[[warm]]\nimages = [\"quay.io/a/b\"]\nevery = \"1h\""
                .to_owned(),
            "warm[1].images",
            "the upstream `quay` is disabled",
        ),
        (
            "[cache]\nmirror = \"\"\n[[warm]]\nimages = [\"nginx\"]\nevery = \"1h\"".to_owned(),
            "warm[1].images",
            "cache.mirror is none",
        ),
        (
            format!("[[warm]]\n{image}every = \"1h\"\nplatforms = [\"amd64\"]"),
            "warm[1].platforms",
            "is no platform",
        ),
        (format!("[[warm]]\n{image}"), "warm[1].schedule", "is required"),
        (
            format!("[[warm]]\n{image}schedule = \"0 3 * *\""),
            "warm[1].schedule",
            "no cron expression",
        ),
        (
            format!("[[warm]]\n{image}schedule = \"0 25 * * *\""),
            "warm[1].schedule",
            "no cron expression",
        ),
        (
            format!("[[warm]]\n{image}schedule = \"0 3 * * *\"\nevery = \"1h\""),
            "warm[1].schedule",
            "one of the two",
        ),
        (
            format!("[[warm]]\n{image}every = \"0s\""),
            "warm[1].every",
            "zero",
        ),
        (
            format!("[[warm]]\n{image}every = 5"),
            "warm[1].every",
            "lacks a unit",
        ),
        (
            format!("[[warm]]\n{image}every = \"1h\"\npin = \"yes\""),
            "warm[1].pin",
            "true or false",
        ),
        (
            format!("[[warm]]\n{image}every = \"1h\"\n[[warm]]\n{image}evry = \"1h\""),
            "warm[2].evry",
            "did you mean `every`",
        ),
    ];
    for (text, key, reason) in cases {
        let found = parse(&text).expect_err(&text);
        let is_it = |fault: &&Fault| fault.key == key && fault.reason.contains(reason);
        assert!(
            found.faults().iter().any(|fault| is_it(&fault)),
            "{text}\n{found}"
        );
    }
    let found = with_variables(None, &[("WHARFINGER__WARM__IMAGES", "nginx")]).expect_err("a variable");
    assert!(found.to_string().contains("written in the file alone"), "{found}");
}

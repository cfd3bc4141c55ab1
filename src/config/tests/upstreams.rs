//! What does not load of what is said of upstreams, by table.

use super::faults::each_is_told;

/// A fault each: the text, then the key and what the reason must hold.
#[test]
fn every_kind_of_fault() {
    each_is_told([
        (
            "[upstream.Nvcr]\nurl = \"https://nvcr.io\"",
            "upstream.Nvcr",
            "lower-case",
        ),
        (
            "[upstream.library]\nurl = \"https://nvcr.io\"",
            "upstream.library",
            "hide other names",
        ),
        (
            "[upstream.nvcr]\nenabled = true",
            "upstream.nvcr.url",
            "is required",
        ),
        (
            "[upstream.docker-hup]\nusername = \"u\"\npassword = \"p\"",
            "upstream.docker-hup.url",
            "upstream.docker-hub?",
        ),
        (
            "[upstream.quay]\nurl = \"ftp://quay.io\"",
            "upstream.quay.url",
            "must begin with",
        ),
        (
            "[upstream.quay]\nurl = \"https://u:hunter2@quay.io\"",
            "upstream.quay.url",
            "credentials",
        ),
        (
            "[upstream.quay]\nhosts = [\"https://quay.io\"]",
            "upstream.quay.hosts",
            "host alone",
        ),
        (
            "[upstream.quay]\nhosts = [\"quay.io\", \"Quay.io\"]",
            "upstream.quay.hosts",
            "listed twice",
        ),
        (
            "[upstream.quay]\nrealms = [\"*.quay.io\"]",
            "upstream.quay.realms",
            "wildcards",
        ),
        (
            "[upstream.quay]\nusername = \"u\"",
            "upstream.quay.username",
            "needs password_file",
        ),
        (
            "[upstream.quay]\npassword = \"hunter2\"",
            "upstream.quay.password",
            "without username",
        ),
        (
            "[upstream.quay]\nusername = \"a:b\"\npassword = \"hunter2\"",
            "upstream.quay.username",
            "colon",
        ),
        (
            "[upstream.quay]\nusername = \"u\"\npassword = 12345",
            "upstream.quay.password",
            "string in quotes",
        ),
        (
            "[upstream.quay]\nusername = \"u\"\npassword = \"hunter2\"\npassword_file = \"/etc/passwd\"",
            "upstream.quay.password_file",
            "exclude each other",
        ),
        (
            "[upstream.quay]\nusername = \"u\"\npassword_file = \"none\"",
            "upstream.quay.password_file",
            "/etc/wharfinger/none cannot be read",
        ),
        (
            "[upstream.quay]\nusername = \"u\"\npassword_file = \"/dev/null\"",
            "upstream.quay.password_file",
            "is empty",
        ),
        (
            "[upstream.quay]\nca_file = \"/dev/null\"",
            "upstream.quay.ca_file",
            "no certificate",
        ),
        (
            "[upstream.quay]\nca_file = \"/no/such\"",
            "upstream.quay.ca_file",
            "cannot be read",
        ),
        (
            "[upstream.quay]\nproxy = \"proxy:3128\"",
            "upstream.quay.proxy",
            "must begin with",
        ),
        (
            "[upstream.quay]\ncaller_check = true",
            "upstream.quay.caller_check",
            "without a login",
        ),
        (
            "[upstream.quay]\ncaller_check = true\nshare_private = true\nusername = \"u\"\npassword = \"p\"",
            "upstream.quay.caller_check",
            "contradicts share_private",
        ),
        (
            "[upstream.quay]\nno_proxy = [\".corp\"]",
            "upstream.quay.no_proxy",
            "without proxy",
        ),
        (
            "[upstream.quay]\nidle_timeout = \"0s\"",
            "upstream.quay.idle_timeout",
            "longer than zero",
        ),
        (
            "[upstream.quay]\nparallel = 17",
            "upstream.quay.parallel",
            "from 1 to 16",
        ),
        (
            "[upstream.quay]\nbandwidth = 50",
            "upstream.quay.bandwidth",
            "lacks a unit",
        ),
        (
            "[upstream.quay]\nbackground_bandwidth = \"1KiB\"",
            "upstream.quay.background_bandwidth",
            "at least \"16KiB\"",
        ),
        // Bandwidth windows.
        (
            "[upstream.quay]\nbandwidth_window = \"mon\"",
            "upstream.quay.bandwidth_window",
            "write [[upstream.quay.bandwidth_window]]",
        ),
        (
            "[[upstream.quay.bandwidth_window]]\nfrom = \"08:00\"\nbandwidth = \"1MiB\"",
            "upstream.quay.bandwidth_window[1].to",
            "is required, like \"18:00\"",
        ),
        (
            "[[upstream.quay.bandwidth_window]]\nfrom = \"08:00\"\nto = \"18:00\"",
            "upstream.quay.bandwidth_window[1].bandwidth",
            "is required, like \"10MiB\"",
        ),
        (
            "[[upstream.quay.bandwidth_window]]\nfrom = \"8\"\nto = \"18:00\"\nbandwidth = \"1MiB\"",
            "upstream.quay.bandwidth_window[1].from",
            "no time of the day",
        ),
        (
            "[[upstream.quay.bandwidth_window]]\nfrom = \"08:00\"\nto = \"08:00\"\nbandwidth = \"1MiB\"",
            "upstream.quay.bandwidth_window[1].to",
            "is empty",
        ),
        (
            "[[upstream.quay.bandwidth_window]]\ndays = [\"monday\"]\nfrom = \"08:00\"\nto = \"18:00\"\nbandwidth = \"unlimited\"",
            "upstream.quay.bandwidth_window[1].days",
            "write mon, tue",
        ),
        (
            "[[upstream.quay.bandwidth_window]]\ndays = []\nfrom = \"08:00\"\nto = \"18:00\"\nbandwidth = \"unlimited\"",
            "upstream.quay.bandwidth_window[1].days",
            "names no day",
        ),
        (
            "[[upstream.quay.bandwidth_window]]\nfrom = \"08:00\"\nto = \"18:00\"\nbandwidth = \"none\"",
            "upstream.quay.bandwidth_window[1].bandwidth",
            "is no size",
        ),
        // One host, one upstream.
        (
            "[upstream.hub]\nurl = \"https://registry-1.docker.io\"\nhosts = [\"docker.io\"]",
            "upstream.hub.hosts",
            "belongs to the built-in upstream docker-hub: put these settings into [upstream.docker-hub], or take it \
             away first with `enabled = false`",
        ),
        (
            "[upstream.q]\nurl = \"https://quay.io\"",
            "upstream.q.hosts",
            "`hosts = []` for none",
        ),
        (
            "[upstream.a]\nurl = \"https://a.example\"\n[upstream.b]\nurl = \"https://b.example\"\nhosts = [\"a.example\"]",
            "upstream.b.hosts",
            "belongs to the upstream a too",
        ),
        (
            "[upstream.\"quay.io\"]\nurl = \"https://q.example\"",
            "upstream.quay.io",
            "is a host of the upstream quay",
        ),
    ]);
}

# A static binary, its CA bundle and the time zones, nothing else, run as nobody.
#   docker build -t wharfinger .
#   docker run -d -p 5000:5000 -v wharfinger:/var/lib/wharfinger wharfinger
FROM rust:1.95.0-alpine AS build
# aws-lc (the TLS library's cryptography) is C and assembler.
RUN apk add --no-cache build-base cmake ca-certificates perl tzdata
WORKDIR /src
# Not rust-toolchain.toml: the image has its toolchain, and needs no formatter.
COPY Cargo.toml Cargo.lock ./
COPY src src
# The manifest names them; they are not built.
RUN mkdir -p tests/it benches/compare benches/fleet \
    && touch tests/it/main.rs benches/compare/main.rs benches/fleet/main.rs \
    && cargo build --locked --release --bin wharfinger \
    && mkdir -p /out/var/lib/wharfinger /out/etc/ssl/certs /out/usr/bin \
    && cp target/release/wharfinger /out/usr/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
    && mkdir -p /out/usr/share && cp -r /usr/share/zoneinfo /out/usr/share/ \
    && chown 65532:65532 /out/var/lib/wharfinger

FROM scratch
COPY --from=build /out /
USER 65532:65532
# In a container the loopback address would be reachable by nobody.
ENV WHARFINGER__SERVER__LISTEN=0.0.0.0:5000 \
    WHARFINGER__STORAGE__DATA_DIR=/var/lib/wharfinger
VOLUME /var/lib/wharfinger
EXPOSE 5000
ENTRYPOINT ["/usr/bin/wharfinger"]
CMD ["serve"]

# The aggregator, for use with a Postgres elsewhere (the image has none, so KAERU_DATABASE_URL must be set).
#
#   cargo build --locked --release --package kaeru-aggregator
#   docker build --file manifests/aggregator.Dockerfile --tag registry.example.com/kaeru/aggregator:0.1.0 target/release
#
# Built on Debian 12 or older, for its C library.
FROM debian:12-slim
# The roots by which a database's certificate is checked.
RUN apt-get update \
  && apt-get install --yes --no-install-recommends ca-certificates \
  && rm -rf /var/lib/apt/lists/*
COPY kaeru /usr/local/bin/kaeru
USER 65532:65532
EXPOSE 7170 7171
ENTRYPOINT ["kaeru"]
CMD ["serve"]

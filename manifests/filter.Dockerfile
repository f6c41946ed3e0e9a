# The filter as an image that Istio's agent takes: one layer (tar+gzip) with plugin.wasm.
#
#   make wasm
#   docker buildx build --provenance=false --sbom=false --platform linux/amd64 --file manifests/filter.Dockerfile \
#     --tag registry.example.com/kaeru/filter:0.1.0 --push target/wasm32-wasip1/wasm
#
# One manifest and no index (hence the two flags and the one platform): Istio compares a pinned sha256 with the
# manifest that it resolves.
FROM scratch
COPY kaeru_filter.wasm /plugin.wasm

# Builds the images for several platforms, with labels, tags and a software bill of materials, and pushes them:
#   REGISTRY=registry.example/team REVISION=$(git rev-parse HEAD) docker buildx bake --file docker/bake.hcl --push
# Without --push it only builds. A builder for several platforms: docker buildx create --use

variable "REGISTRY" {
  default = "" # such as registry.example/team; without one the images are named keywarp
}
variable "VERSION" {
  default = "0.1.0"
}
variable "REVISION" {
  default = "" # the commit
}
variable "SOURCE" {
  default = "" # the address of the repository
}
variable "BASE" {
  default = "python:3.11-slim"
}

group "default" {
  targets = ["cpu", "gpu"]
}

function "tags" {
  params = [kind]
  result = [for tag in [kind, "${VERSION}-${kind}"] : "${REGISTRY == "" ? "" : "${REGISTRY}/"}keywarp:${tag}"]
}

target "image" {
  context = "."
  args = {
    BASE     = BASE
    REVISION = REVISION
    SOURCE   = SOURCE
    VERSION  = VERSION
  }
  attest = ["type=sbom", "type=provenance,mode=max"]
}

target "cpu" {
  inherits   = ["image"]
  dockerfile = "docker/Dockerfile.cpu"
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = tags("cpu")
}

target "gpu" { # NVIDIA's packages for Python are for this platform only
  inherits   = ["image"]
  dockerfile = "docker/Dockerfile.gpu"
  platforms  = ["linux/amd64"]
  tags       = tags("gpu")
}

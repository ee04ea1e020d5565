// `foretoken deploy`: deployment files of a topology. Writes into a folder that the caller names; shows them on stdout without one.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "configs/topology_reader.h"
#include "integration/cli/commands.h"
#include "integration/deploy/deployment.h"

namespace foretoken {
namespace {

struct Arguments {
  std::string topology, target, out;
  KubernetesOptions kubernetes;
};

Result<std::vector<DeployFile>> FilesOf(const Topology& topology, Arguments& a) {
  if (a.target == "systemd") return SystemdUnits(topology);
  std::ifstream in(a.topology);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) return Error{a.topology + ": cannot be read again"};
  a.kubernetes.topology_text = text.str();
  return KubernetesManifests(topology, a.kubernetes);
}

Status WriteAll(const std::vector<DeployFile>& files, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  for (const DeployFile& f : files) {
    const std::filesystem::path path = std::filesystem::path(folder) / f.name;
    std::ofstream out(path);
    out << f.text;
    out.flush();
    if (!out) return Error{path.string() + ": cannot be written: name a folder that you may write to (--out)"};
    std::cerr << "wrote " << path.string() << "\n";
  }
  return Status();
}

int Deploy(Arguments& a) {
  const auto topology = LoadTopology(a.topology);
  if (!topology.ok()) {
    std::cerr << topology.errors().ToString();
    return kExitUsage;
  }
  const auto files = FilesOf(*topology, a);
  if (!files.ok()) {
    std::cerr << "foretoken deploy: " << files.error().message << "\n";
    return kExitUsage;
  }
  if (!a.out.empty()) {
    const Status written = WriteAll(*files, a.out);
    if (written.ok()) return kExitOk;
    std::cerr << "foretoken deploy: " << written.error().message << "\n";
    return kExitFailed;
  }
  for (const DeployFile& f : *files) std::cout << (files->size() > 1 ? "# " + f.name + "\n" : "") << f.text;
  return kExitOk;
}

}  // namespace

void AddDeployCommand(CLI::App& app, int& exit_code) {
  auto a = std::make_shared<Arguments>();
  CLI::App* c = app.add_subcommand("deploy", "Write systemd units or Kubernetes manifests for the nodes of a topology");
  c->add_option("--topology", a->topology, "The topology's file")->required();
  c->add_option("--for", a->target, "systemd or kubernetes")->required()->check(CLI::IsMember({"systemd", "kubernetes"}));
  c->add_option("--out", a->out, "Folder to write to; without it the files are shown");
  c->add_option("--image", a->kubernetes.image, "Container image (kubernetes)");
  c->footer(
      "Example: foretoken deploy --topology configs/topologies/small.yaml --for systemd\n"
      "Example: foretoken deploy --topology cluster.yaml --for kubernetes --image registry.example/foretoken:0.1 --out deploy");
  c->callback([a, &exit_code] { exit_code = Deploy(*a); });
}

}  // namespace foretoken

#include "integration/deploy/deployment.h"

namespace foretoken {
namespace {

// Longer than the drain of 30 s that SIGTERM begins: systemd kills only what hangs.
constexpr std::string_view kStopTimeout = "45s";

std::string Service(std::string_view description, std::string_view command, std::string_view wanted_by) {
  std::string s = "[Unit]\nDescription=";
  s += description;
  s += "\nAfter=network-online.target\nWants=network-online.target\n";
  if (wanted_by == "foretoken.target") s += "PartOf=foretoken.target\n";
  s += "\n[Service]\nExecStart=/usr/bin/foretoken serve --topology /etc/foretoken/topology.yaml";
  s += command;
  s += "\nExecReload=/bin/kill -HUP $MAINPID\n";
  s += "Restart=on-failure\nRestartSec=1s\n";
  s += "TimeoutStopSec=";
  s += kStopTimeout;
  s += "\nDynamicUser=yes\nConfigurationDirectory=foretoken\nStateDirectory=foretoken\nWorkingDirectory=/var/lib/foretoken\n";
  s += "ProtectSystem=strict\nProtectHome=yes\nPrivateTmp=yes\nNoNewPrivileges=yes\nLimitNOFILE=65536\n";
  s += "\n[Install]\nWantedBy=";
  s += wanted_by;
  s += "\n";
  return s;
}

}  // namespace

std::vector<DeployFile> SystemdUnits(const Topology& topology) {
  if (topology.nodes.empty())
    return {{"foretoken.service", Service("Foretoken, all nodes in one process", "", "multi-user.target")}};
  std::string target = "[Unit]\nDescription=Foretoken, the nodes of this host\n";
  target += "# The topology's nodes; delete those that another host runs.\n";
  for (const NodeSpec& node : topology.nodes) target += "Wants=foretoken@" + node.name + ".service\n";
  target += "\n[Install]\nWantedBy=multi-user.target\n";
  return {{"foretoken@.service", Service("Foretoken node %i", " --node %i", "foretoken.target")},
          {"foretoken.target", std::move(target)}};
}

}  // namespace foretoken

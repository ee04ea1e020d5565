// Certificates for measurements and trials on one machine: an authority made up on the spot, and a key and certificate per name under it.
// The keys lie unprotected in the folder: not for anything that others can reach.
#pragma once

#include <string>
#include <vector>

#include "runtime/base/result.h"

namespace foretoken {

// Writes ca.pem and, per name, NAME.pem and NAME.key (P-256, valid for a day) into `folder`, which exists. Error: OpenSSL's or the
// file system's complaint.
Status WriteThrowawayCertificates(const std::string& folder, const std::vector<std::string>& names);

}  // namespace foretoken

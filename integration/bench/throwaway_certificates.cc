#include "integration/bench/throwaway_certificates.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <memory>

namespace foretoken {
namespace {

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

struct Holder {
  Key key{nullptr, EVP_PKEY_free};
  Certificate certificate{nullptr, X509_free};
};

bool AddExtension(X509* to, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, to, nullptr, nullptr, 0);
  X509_EXTENSION* e = X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
  const bool ok = e != nullptr && X509_add_ext(to, e, -1) == 1;
  X509_EXTENSION_free(e);
  return ok;
}

// `authority`: null for the authority itself.
bool Issue(const std::string& name, long serial, const Holder* authority, Holder& out) {
  out.key.reset(EVP_EC_gen("P-256"));
  out.certificate.reset(X509_new());
  X509* c = out.certificate.get();
  if (out.key == nullptr || c == nullptr) return false;
  X509_set_version(c, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(c), serial);
  X509_gmtime_adj(X509_getm_notBefore(c), -3600);
  X509_gmtime_adj(X509_getm_notAfter(c), 24 * 3600);
  X509_set_pubkey(c, out.key.get());
  X509_NAME* subject = X509_get_subject_name(c);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509* issuer = authority == nullptr ? c : authority->certificate.get();
  X509_set_issuer_name(c, X509_get_subject_name(issuer));
  const bool extended = authority == nullptr ? AddExtension(c, issuer, NID_basic_constraints, "critical,CA:TRUE")
                                             : AddExtension(c, issuer, NID_subject_alt_name, "DNS:" + name);
  EVP_PKEY* signer = authority == nullptr ? out.key.get() : authority->key.get();
  return extended && X509_sign(c, signer, EVP_sha256()) > 0;
}

bool WriteFile(const std::string& path, const auto& write) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "w"), std::fclose);
  return file != nullptr && write(file.get()) == 1;
}

}  // namespace

Status WriteThrowawayCertificates(const std::string& folder, const std::vector<std::string>& names) {
  const auto fail = [](const std::string& what) {
    char reason[256] = "no reason given";
    if (const unsigned long code = ERR_get_error(); code != 0) ERR_error_string_n(code, reason, sizeof reason);
    return Error{what + ": " + reason};
  };
  Holder authority;
  if (!Issue("foretoken trial authority", 1, nullptr, authority)) return fail("no authority");
  const auto certificate_to = [](const Holder& h) { return [&h](FILE* f) { return PEM_write_X509(f, h.certificate.get()); }; };
  if (!WriteFile(folder + "/ca.pem", certificate_to(authority))) return fail(folder + "/ca.pem");
  long serial = 2;
  for (const std::string& name : names) {
    Holder h;
    if (!Issue(name, serial++, &authority, h)) return fail("no certificate for " + name);
    const auto key_to = [&h](FILE* f) { return PEM_write_PrivateKey(f, h.key.get(), nullptr, nullptr, 0, nullptr, nullptr); };
    if (!WriteFile(folder + "/" + name + ".pem", certificate_to(h))) return fail(folder + "/" + name + ".pem");
    if (!WriteFile(folder + "/" + name + ".key", key_to)) return fail(folder + "/" + name + ".key");
  }
  return Status();
}

}  // namespace foretoken

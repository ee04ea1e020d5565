#include "integration/gateway/client_session.h"

#include <algorithm>
#include <array>
#include <boost/asio/error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <utility>

namespace foretoken {

namespace asio = boost::asio;

namespace {

// A body trickles on when it does not bring so much in every body_timeout.
constexpr uint64_t kLeastBytesPerWindow = 512;
constexpr Duration kLingers = Duration::Seconds(2);
constexpr Duration kLingersAtTheEnd = Duration::Millis(250);  // while the gateway waits for nothing else

}  // namespace

ClientSession::ClientSession(Gateway& gateway, asio::ip::tcp::socket socket, GatewayDoor door)
    : gateway_(gateway), socket_(std::move(socket)), door_(door), since_(gateway.Now()), exchange_(gateway, *this) {
  if (gateway.tls() != nullptr && door == GatewayDoor::kPublic)
    tls_ = std::make_unique<asio::ssl::stream<asio::ip::tcp::socket&>>(socket_, *gateway.tls());
}

ClientSession::~ClientSession() { Close(); }

void ClientSession::Start() {
  Code ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket_.non_blocking(true, ignored);
  gateway_.Add(*this);
  ++gateway_.counters().connections;
  if (tls_ == nullptr) return Read();
  tls_->async_handshake(asio::ssl::stream_base::server, [self = shared_from_this()](const Code& code) {
    if (self->state_ == State::kClosed) return;
    if (code) return self->Close();
    self->Read();
  });
}

void ClientSession::Read() {
  if (reading_ || state_ == State::kClosed) return;
  if (in_.empty()) in_.resize(kSmallBuffer);
  if (end_ == in_.size()) {
    if (begin_ > 0) {
      std::copy(in_.begin() + static_cast<std::ptrdiff_t>(begin_), in_.end(), in_.begin());
      end_ -= begin_;
      begin_ = 0;
    } else if (in_.size() < kLargeBuffer && state_ != State::kBusy) {
      in_.resize(std::min(kLargeBuffer, in_.size() * 4));
    } else {
      return;  // the next request waits until this one is answered
    }
  }
  reading_ = true;
  auto handler = [self = shared_from_this()](const Code& code, size_t n) { self->OnRead(code, n); };
  const asio::mutable_buffer space(in_.data() + end_, in_.size() - end_);
  if (tls_ != nullptr) {
    tls_->async_read_some(space, std::move(handler));
  } else {
    socket_.async_read_some(space, std::move(handler));
  }
}

void ClientSession::OnRead(const Code& code, size_t n) {
  reading_ = false;
  if (state_ == State::kClosed) return;
  if (code) return Close();
  if (state_ == State::kLinger) {
    end_ = begin_ = 0;
    return Read();
  }
  if (state_ == State::kHead && begin_ == end_) since_ = gateway_.Now();
  window_bytes_ += n;
  end_ += n;
  Process();
}

void ClientSession::Process() {
  if (processing_) return;
  processing_ = true;
  const auto self = shared_from_this();
  for (;;) {
    const bool on = state_ == State::kHead ? StepHead() : state_ == State::kBody ? StepBody() : false;
    if (!on) break;
  }
  processing_ = false;
  if (begin_ == end_) begin_ = end_ = 0;
  Read();
}

// True: there may be more to do with what has been read.
bool ClientSession::StepHead() {
  if (begin_ == end_) return false;
  const std::string_view bytes(in_.data() + begin_, end_ - begin_);
  if (head_seen_ == 0 && (bytes[0] == '\r' || bytes[0] == '\n')) {  // an empty line between requests (RFC 9112, 2.2)
    ++begin_;
    return true;
  }
  const size_t end = FindHeadEnd(bytes, head_seen_);
  const size_t most = gateway_.config().max_header_bytes;
  const GatewayError too_large{400,
                               "The request's head is longer than " + std::to_string(most) + " bytes.",
                               "invalid_request_error",
                               "",
                               "header_too_large",
                               {}};
  if (end == 0) {
    if (bytes.size() > most) RefuseAndClose(too_large);
    return false;
  }
  head_ = RequestHead();
  size_t consumed = 0;
  std::string error;
  const HeadResult result = ParseRequestHead(bytes, gateway_.head_options(), head_, consumed, error);
  if (result != HeadResult::kDone) {
    head_.keep_alive = false;
    if (result == HeadResult::kTooLarge) {
      RefuseAndClose(too_large);
    } else {
      RefuseAndClose({400, "The request is not valid HTTP/1.1: " + error + ".", "invalid_request_error", "", "bad_http", {}});
    }
    return false;
  }
  begin_ += consumed;
  head_seen_ = 0;
  return OnHead();
}

// The head is there: is its body wanted? True: there may be more to do.
bool ClientSession::OnHead() {
  if (head_.request_id.empty()) {
    head_.request_id = gateway_.NewRequestName();
    head_.made_request_id = true;
  }
  endpoint_.reset();
  if (door_ == GatewayDoor::kPublic) {
    if (head_.path() == "/v1/chat/completions") endpoint_ = Endpoint::kChatCompletions;
    if (head_.path() == "/v1/completions") endpoint_ = Endpoint::kCompletions;
  }
  const uint64_t limit = endpoint_ ? gateway_.config().max_payload_bytes : 1 << 20;
  if (door_ == GatewayDoor::kPublic && head_.path().substr(0, 4) == "/v1/" && !gateway_.KeyIsValid(head_.authorization)) {
    RefuseAndClose({401,
                    "The API key is missing or not valid: send it as `Authorization: Bearer KEY`.",
                    "authentication_error",
                    "",
                    "invalid_api_key",
                    {}});
    return false;
  }
  if (head_.content_length.value_or(0) > limit) {
    RefuseAndClose({413,
                    "The body is longer than " + std::to_string(limit) + " bytes.",
                    "invalid_request_error",
                    "",
                    "body_too_large",
                    {}});
    return false;
  }
  body_.clear();
  body_left_ = head_.content_length.value_or(0);
  decoder_ = ChunkedDecoder();
  if (!head_.chunked && body_left_ == 0) {
    Handle();
    return true;
  }
  if (!gateway_.ReserveBytes(body_left_)) {
    RefuseAndClose({503, "Too many large requests are under way.", "server_error", "", "out_of_memory", 1});
    return false;
  }
  reserved_ = body_left_;
  if (head_.expects_continue) {
    const std::string_view line = "HTTP/1.1 100 Continue\r\n\r\n";
    Send({&line, 1});
  }
  state_ = State::kBody;
  since_ = gateway_.Now();
  window_bytes_ = end_ - begin_;
  return true;
}

bool ClientSession::TakeBody(const char* data, size_t size) {
  const uint64_t limit = endpoint_ ? gateway_.config().max_payload_bytes : 1 << 20;
  if (body_.size() + size > limit) {
    RefuseAndClose({413,
                    "The body is longer than " + std::to_string(limit) + " bytes.",
                    "invalid_request_error",
                    "",
                    "body_too_large",
                    {}});
    return false;
  }
  if (body_.size() + size > reserved_) {
    if (!gateway_.ReserveBytes(body_.size() + size - reserved_)) {
      RefuseAndClose({503, "Too many large requests are under way.", "server_error", "", "out_of_memory", 1});
      return false;
    }
    reserved_ = body_.size() + size;
  }
  body_.append(data, size);
  return true;
}

bool ClientSession::StepBody() {
  const size_t available = end_ - begin_;
  if (available == 0) return false;
  bool done = false;
  if (head_.chunked) {
    const ChunkedDecoder::Step step = decoder_.Decode(in_.data() + begin_, available);
    if (step.state == ChunkedDecoder::State::kBad) {
      RefuseAndClose({400, "The body is not valid chunked coding.", "invalid_request_error", "", "bad_http", {}});
      return false;
    }
    if (!TakeBody(in_.data() + begin_, step.payload)) return false;
    begin_ += step.consumed;
    done = step.state == ChunkedDecoder::State::kDone;
  } else {
    const size_t n = static_cast<size_t>(std::min<uint64_t>(available, body_left_));
    if (!TakeBody(in_.data() + begin_, n)) return false;
    begin_ += n;
    body_left_ -= n;
    done = body_left_ == 0;
  }
  if (begin_ == end_) begin_ = end_ = 0;
  if (!done) return false;
  if (in_.size() > kSmallBuffer && begin_ == end_) std::vector<char>().swap(in_);
  Handle();
  return true;
}

bool ClientSession::Send(std::span<const std::string_view> pieces) {
  if (state_ == State::kClosed) return false;
  if (writing_) {
    for (const std::string_view p : pieces) queued_.append(p);
    return false;
  }
  size_t sent = 0, total = 0;
  for (const std::string_view p : pieces) total += p.size();
  if (tls_ == nullptr) {
    std::array<asio::const_buffer, 6> buffers;
    for (size_t i = 0; i < pieces.size(); ++i) buffers[i] = {pieces[i].data(), pieces[i].size()};
    Code code;
    sent = socket_.write_some(std::span(buffers.data(), pieces.size()), code);
    if (code && code != asio::error::would_block) {
      Close();
      return false;
    }
    if (sent == total) return true;
  }
  out_.clear();
  out_sent_ = 0;
  for (const std::string_view p : pieces) {
    const size_t skipped = std::min(sent, p.size());
    sent -= skipped;
    out_.append(p.substr(skipped));
  }
  out_since_ = gateway_.Now();
  WriteOn();
  return false;
}

void ClientSession::WriteOn() {
  writing_ = true;
  auto handler = [self = shared_from_this()](const Code& code, size_t n) { self->OnWritten(code, n); };
  const asio::const_buffer rest(out_.data() + out_sent_, out_.size() - out_sent_);
  if (tls_ != nullptr) {
    tls_->async_write_some(rest, std::move(handler));
  } else {
    socket_.async_write_some(rest, std::move(handler));
  }
}

void ClientSession::OnWritten(const Code& code, size_t n) {
  writing_ = false;
  if (state_ == State::kClosed) return;
  if (code) return Close();
  out_since_ = gateway_.Now();
  out_sent_ += n;
  if (out_sent_ < out_.size()) return WriteOn();
  std::string().swap(out_);
  out_sent_ = 0;
  if (!queued_.empty()) {
    out_.swap(queued_);
    return WriteOn();
  }
  if (linger_after_) return Linger();
  if (close_after_) return Close();
  exchange_.OnSinkDrained();
}

void ClientSession::SendError(const GatewayError& error) {
  AnswerOptions options;
  options.status = error.status;
  options.retry_after_s = error.retry_after_s;
  options.allow = error.allow;
  Answer(ErrorObject(error), options);
}

void ClientSession::Answer(std::string_view body, AnswerOptions options) {
  options.request_id = head_.request_id;
  options.keep_alive = head_.keep_alive && !gateway_.draining();
  options.head_only = head_.method == "HEAD";
  const std::string answer = WholeAnswer(body, options);
  const std::string_view piece = answer;
  state_ = State::kBusy;
  Send({&piece, 1});
  Finish(options.keep_alive);
}

void ClientSession::Finish(bool keep_alive) {
  if (state_ == State::kClosed) return;
  gateway_.ReleaseBytes(std::exchange(reserved_, 0));
  if (!keep_alive || gateway_.draining()) {
    if (writing_) {
      linger_after_ = true;
      state_ = State::kBusy;
      return;
    }
    return Linger();
  }
  state_ = State::kHead;
  since_ = gateway_.Now();
  head_seen_ = 0;
  if (!processing_) Process();
}

// An error after which the request's end cannot be found or is not waited for.
void ClientSession::RefuseAndClose(GatewayError error) {
  ++gateway_.counters().refused;
  head_.keep_alive = false;
  begin_ = end_ = 0;
  SendError(error);
}

// Shuts our side and reads on for a moment: closing with unread bytes would reset the connection and take the answer with it.
void ClientSession::Linger() {
  state_ = State::kLinger;
  since_ = gateway_.Now();
  begin_ = end_ = 0;
  Code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  if (!processing_) Read();
}

void ClientSession::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  exchange_.Cancel();
  gateway_.ReleaseBytes(std::exchange(reserved_, 0));
  Code ignored;
  socket_.close(ignored);
  if (is_linked()) gateway_.Remove(*this);
}

void ClientSession::Sweep(Instant now) {
  const GatewayConfig& c = gateway_.config();
  if (writing_ && now - out_since_ > c.send_timeout) {
    ++gateway_.counters().slow_clients;
    return Close();
  }
  switch (state_) {
    case State::kHead: {
      const bool begun = begin_ != end_;
      if (now - since_ <= (begun ? c.header_timeout : c.idle_timeout)) return;
      if (!begun) return Close();
      ++gateway_.counters().slow_clients;
      return RefuseAndClose(
          {408, "The request's head did not come in time.", "invalid_request_error", "", "request_timeout", {}});
    }
    case State::kBody:
      if (now - since_ <= c.body_timeout) return;
      if (window_bytes_ < kLeastBytesPerWindow) {
        ++gateway_.counters().slow_clients;
        return RefuseAndClose(
            {408, "The request's body comes too slowly.", "invalid_request_error", "", "request_timeout", {}});
      }
      since_ = now;
      window_bytes_ = 0;
      return;
    case State::kBusy:
      if (exchange_.active()) exchange_.Sweep(now);
      return;
    case State::kLinger:
      if (now - since_ > (gateway_.draining() ? kLingersAtTheEnd : kLingers)) Close();
      return;
    case State::kClosed: return;
  }
}

void ClientSession::Drain() {
  if (state_ == State::kHead && begin_ == end_ && !writing_) Close();
}

}  // namespace foretoken

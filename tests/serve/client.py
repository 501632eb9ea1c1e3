#!/usr/bin/env python3
"""usage: client.py CLAIM PORT [ARGUMENT...]

What a client of `pinwire serve` sees: one function a claim, on Python's own HTTP and raw sockets. tests/serve/main.rs
starts the server and calls this. Exit code 77: it could not be tried here, and why is on standard output.
"""
import email
import email.utils
import hashlib
import html.parser
import http.client
import os
import random
import resource
import signal
import socket
import struct
import sys
import time
import urllib.parse

HOST = "127.0.0.1"
port = 0


def ask(path, method="GET", body=None, **fields):
    """One request on a connection of its own: status, headers, body."""
    connection = http.client.HTTPConnection(HOST, port, timeout=20)
    fields = {name.replace("_", "-"): value for name, value in fields.items()}
    connection.request(method, path, body, fields)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, content


def connect(receive=None, segment=None):
    """A socket, with a small receive buffer if wanted; with short segments the server's is small, too."""
    sock = socket.socket()
    sock.settimeout(20)
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    if segment:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
    sock.connect((HOST, port))
    return sock


def raw(request, half_close=False):
    """All that comes back for these bytes, until the server closes."""
    with connect() as sock:
        sock.sendall(request)
        if half_close:
            sock.shutdown(socket.SHUT_WR)
        return to_end(sock)


def to_end(sock):
    answer = bytearray()
    while part := sock.recv(1 << 20):
        answer += part
    return bytes(answer)


def status_of(answer):
    assert answer.startswith(b"HTTP/1.1 "), answer[:80]
    return int(answer[9:12])


def get(path, fields="", version="1.1"):
    host = "Host: x\r\n" if version == "1.1" else ""
    return f"GET {path} HTTP/{version}\r\n{host}{fields}\r\n".encode("latin-1")


def one_answer(sock):
    """One answer of a connection that stays: status and body."""
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    return answer.status, answer.read()


def wait_until(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.02)


def every_byte(folder):
    """Every file of the folder, whole and in parts, is what it is on the disk."""
    names = sorted(os.listdir(folder))
    assert names
    for name in names:
        path = os.path.join(folder, name)
        size = os.path.getsize(path)
        content = open(path, "rb").read()
        with open(path, "rb") as file:  # it is not in the page cache when the server comes
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        status, headers, body = ask("/" + name)
        assert (status, int(headers["Content-Length"])) == (200, size), (name, status, headers)
        assert hashlib.sha256(body).digest() == hashlib.sha256(content).digest(), name
        status, headers, body = ask("/" + name, "HEAD")
        assert (status, int(headers["Content-Length"]), body) == (200, size, b""), name
        for first, last in (0, 0), (1, 1), (1, 4096), (4095, 70000), (65536, 65537), (size // 2, size - 2), (size - 1, size + 9):
            if not 0 <= first < size or last < first:
                continue
            last_in = min(last, size - 1)
            status, headers, body = ask("/" + name, Range=f"bytes={first}-{last}")
            assert status == 206, (name, first, last, status)
            assert headers["Content-Range"] == f"bytes {first}-{last_in}/{size}", headers["Content-Range"]
            assert body == content[first : last_in + 1], (name, first, last)


def slow_reader(name, path):
    """A peer with a small buffer that reads in fits gets every byte: short writes, full sockets."""
    content = open(path, "rb").read()
    with connect(receive=131072) as sock:
        sock.sendall(get("/" + name, "Connection: close\r\n"))
        answer, sizes = bytearray(), (1, 100, 5000, 300000, 17, 70000)
        turn = 0
        while part := sock.recv(sizes[turn % len(sizes)]):
            answer += part
            turn += 1
            if turn % 16 == 0:
                time.sleep(0.002)
    body = answer.split(b"\r\n\r\n", 1)[1]
    assert body == content, (len(body), len(content))


def beyond_2_gib(name, path):
    """Where 32 bits end, parts are right; the whole is counted by curl."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        for at in (2**31 - 300, 2**32 - 300, size - 300):
            file.seek(at)
            content = file.read(600)
            status, headers, body = ask("/" + name, Range=f"bytes={at}-{at + 599}")
            assert (status, body) == (206, content), at
    status, headers, _ = ask("/" + name, "HEAD")
    assert int(headers["Content-Length"]) == size


def several_ranges(name, path):
    """Several ranges come as one multipart body; too many, or more than the file, as the file."""
    content = open(path, "rb").read()
    size = len(content)
    asked = [(0, 9), (100, 70099), (size - 3, size - 1)]
    value = "bytes=" + ", ".join(f"{first}-{last}" for first, last in asked[:2]) + ",-3"
    status, headers, body = ask("/" + name, Range=value)
    assert status == 206, status
    assert int(headers["Content-Length"]) == len(body)
    message = email.message_from_bytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
    parts = message.get_payload()
    assert len(parts) == 3, parts
    for part, (first, last) in zip(parts, asked):
        assert part["Content-Range"] == f"bytes {first}-{last}/{size}", part["Content-Range"]
        assert part["Content-Type"] == "application/octet-stream", part["Content-Type"]
        if first == 100:  # Python takes the others for text with line ends of its own
            begin = body.index(content[100:200])
            assert body[begin : begin + 70000] == content[100:70100]
    assert body.startswith(b"\r\n--") and body.endswith(b"--\r\n")
    for value in "bytes=" + "0-0," * 40, "bytes=0-,0-,0-":
        status, headers, body = ask("/" + name, Range=value)
        assert (status, body) == (200, content), (value[:20], status)
    for value, expect in ("bytes=" + str(size) + "-", 416), ("bytes=-0", 416), ("lines=1-2", 200), ("bytes=9-3", 200):
        status, headers, _ = ask("/" + name, Range=value)
        assert status == expect, (value, status)
        if expect == 416:
            assert headers["Content-Range"] == f"bytes */{size}"
    assert ask("/" + name, "HEAD", Range="bytes=0-1")[0] == 200
    status, _, body = ask("/" + name, Range="bytes=-5")
    assert (status, body) == (206, content[-5:])


def conditions(name, path):
    """Conditional requests, in the order of precedence of RFC 9110."""
    os.utime(path, (1_600_000_000, 1_600_000_000))
    _, headers, content = ask("/" + name)
    tag, date = headers["ETag"], headers["Last-Modified"]
    assert not tag.startswith("W/"), tag
    assert date == "Sun, 13 Sep 2020 12:26:40 GMT", date
    earlier = email.utils.formatdate(1_599_999_999, usegmt=True)
    later = email.utils.formatdate(1_600_000_001, usegmt=True)
    for expect, fields in [
        (304, {"If_None_Match": tag}),
        (304, {"If_None_Match": "W/" + tag}),
        (304, {"If_None_Match": '"a", "b" , ' + tag}),
        (304, {"If_None_Match": "*"}),
        (200, {"If_None_Match": '"a"'}),
        (200, {"If_None_Match": '"a"', "If_Modified_Since": later}),
        (304, {"If_Modified_Since": date}),
        (304, {"If_Modified_Since": later}),
        (200, {"If_Modified_Since": earlier}),
        (200, {"If_Modified_Since": "yesterday"}),
        (200, {"If_Match": tag}),
        (200, {"If_Match": "*"}),
        (412, {"If_Match": '"a"'}),
        (412, {"If_Match": "W/" + tag}),
        (412, {"If_Unmodified_Since": earlier}),
        (200, {"If_Unmodified_Since": date}),
        (206, {"Range": "bytes=1-2", "If_Range": tag}),
        (206, {"Range": "bytes=1-2", "If_Range": date}),
        (200, {"Range": "bytes=1-2", "If_Range": '"a"'}),
        (200, {"Range": "bytes=1-2", "If_Range": "W/" + tag}),
        (200, {"Range": "bytes=1-2", "If_Range": later}),
        (304, {"Range": "bytes=1-2", "If_None_Match": tag}),
    ]:
        status, headers, body = ask("/" + name, **fields)
        assert status == expect, (status, fields)
        if status == 200:
            assert body == content
        if status == 304:
            assert body == b"" and headers["ETag"] == tag and "Content-Length" not in headers
    # Changed: another tag. Changed just now: a weak one, which completes nothing.
    with open(path, "ab") as file:
        file.write(b"more")
    status, headers, body = ask("/" + name, If_None_Match=tag, Range="bytes=1-2", If_Range=tag)
    assert (status, body) == (200, content + b"more")
    assert headers["ETag"].startswith("W/"), headers["ETag"]
    fields = {"Range": "bytes=1-2", "If_Range": headers["ETag"]}
    assert ask("/" + name, **fields)[0] == 200


def keep_alive(name, path):
    """Requests one after the other on one connection; many at once are answered in their order."""
    content = open(path, "rb").read()
    with connect() as sock:
        for _ in range(3):
            sock.sendall(get("/" + name))
            assert one_answer(sock) == (200, content)
        # In pieces: the head comes byte by byte.
        for byte in get("/" + name):
            sock.sendall(bytes([byte]))
        assert one_answer(sock) == (200, content)
    count = 300
    requests = b"".join(get("/" + name, f"Range: bytes={at}-{at + 9}\r\n") for at in range(count))
    requests += get("/nothing", "Connection: close\r\n")
    answers = raw(requests)
    at = 0
    for number in range(count):
        end = answers.index(b"\r\n\r\n", at) + 4
        head = answers[at:end]
        assert f"Content-Range: bytes {number}-".encode() in head, (number, head)
        assert answers[end : end + 10] == content[number : number + 10], number
        at = end + 10
    assert status_of(answers[at:]) == 404
    # A peer that has said all it wants to say still gets its answers.
    answers = raw(get("/" + name) * 2, half_close=True)
    assert answers.count(b"HTTP/1.1 200") == 2 and answers.endswith(content)


def versions(name, path):
    content = open(path, "rb").read()
    answer = raw(get("/" + name, version="1.0"))
    assert status_of(answer) == 200 and answer.endswith(b"\r\n\r\n" + content)
    with connect() as sock:
        for _ in range(2):
            sock.sendall(get("/" + name, "Connection: keep-alive\r\n", "1.0"))
            assert one_answer(sock) == (200, content)
    for request, status in [
        (b"GET /x HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"GET /x HTTP/1.1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", 400),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 10_000_000, 431),
    ]:
        try:
            answer = raw(request)
        except ConnectionError:  # more was on its way than anybody reads
            assert len(request) > 1_000_000, request[:80]
            continue
        assert status_of(answer) == status, (request[:40], answer[:60])
        assert b"Connection: close" in answer


def other_methods(name, path):
    content = open(path, "rb").read()
    for method in "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE":
        status, headers, _ = ask("/" + name, method)
        assert (status, headers["Allow"]) == (405, "GET, HEAD"), (method, status)
    assert ask("/" + name, "BREW")[0] == 501
    assert ask("/" + name, "get")[0] == 501
    # A body is not read as if it were the next request.
    smuggled = get("/smuggled", "Connection: close\r\n")
    for fields in (f"Content-Length: {len(smuggled)}\r\n", "Transfer-Encoding: chunked\r\n"):
        answer = raw(get("/" + name, fields) + smuggled)
        assert answer.count(b"HTTP/1.1") == 1 and answer.endswith(content), answer[:200]
        answer = raw(get("/" + name, fields).replace(b"GET", b"POST") + smuggled)
        assert answer.count(b"HTTP/1.1") == 1 and status_of(answer) == 405, answer[:200]
    both = get("/" + name, "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")
    assert status_of(raw(both)) == 400
    status, _, body = ask("/" + name, "POST", b"x" * 3_000_000)
    assert status == 405


def nothing_leads_out(secret, links="follow"):
    """The tree is that of main.rs; `secret` is what must not be seen."""
    for target in [
        "/../secret", "/%2e%2e/secret", "/.%2E/secret", "/a/../../secret", "/a/%2e%2e/%2e%2e/secret",
        "/..%2fsecret", "/%2e%2e%2fsecret", "/..\\secret", "/..%5csecret", "//../secret", "/./../secret",
        "/a%00/../../secret", "/%00", "/secret%00", "/out", "/out-absolute", "/out-folder/secret", "/out-folder/",
        "/chain", "//etc/passwd", "/%2fetc/passwd", "/etc/passwd", "http://x/../secret", "/proc-link/root/etc/passwd",
    ]:  # fmt: skip
        answer = raw(get(target, "Connection: close\r\n"))
        assert status_of(answer) in (400, 403, 404), (target, answer[:60])
        assert secret.encode() not in answer and b"root:" not in answer, target
    for target in "/in", "/a/in-up":
        expect = 200 if links == "follow" else 404
        assert status_of(raw(get(target, "Connection: close\r\n"))) == expect, target
    assert ask("/a/inside")[2] == b"inside"
    assert ask("/denied")[0] in (403, 200)  # 200 where the server is root
    assert ask("/fifo")[0] == 403
    assert ask("/socket")[0] == 403


class Links(html.parser.HTMLParser):
    """The links of a page, and its tags."""

    def __init__(self, page):
        super().__init__()
        self.links, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name == "href"]


def folders(folder):
    """A folder without an index is listed; each name leads to its file."""
    status, headers, body = ask("/odd")
    assert (status, headers["Location"]) == (301, "/odd/")
    assert ask("/odd?a=b&c")[1]["Location"] == "/odd/?a=b&c"
    assert ask("//odd")[1]["Location"] == "/odd/"
    status, headers, body = ask("/odd/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = Links(body.decode())
    assert page.tags <= {"html", "head", "meta", "title", "body", "h1", "ul", "li", "a"}, page.tags
    base = f"http://{HOST}/odd/"
    found = set()
    for link in page.links:
        url = urllib.parse.urlsplit(urllib.parse.urljoin(base, link))
        assert url.netloc == HOST, link
        status, headers, body = ask(url.path)
        assert status == 200, (link, status)
        found.add(urllib.parse.unquote_to_bytes(url.path))
    expect = {b"/odd/" + name + (b"/" if name == b"folder" else b"") for name in os.listdir(os.fsencode(folder))}
    assert found == expect | {b"/"}, (found, expect)
    assert ask("/odd/", "HEAD")[1]["Content-Length"] == str(len(ask("/odd/")[2]))
    status, headers, body = ask("/")
    assert (status, body) == (200, b"<p>index\n"), (status, body)
    for path, kind in [("/a.css", "text/css; charset=utf-8"), ("/a.PNG", "image/png"), ("/a.unknown", "application/octet-stream")]:
        assert ask(path)[1]["Content-Type"] == kind, path
    assert ask("/a.css/")[0] == 404
    assert ask("/none")[0] == 404


def shrinking(name, path):
    """The file is cut while it is sent: the answer ends early, and nobody else notices."""
    size = os.path.getsize(path)
    with connect(receive=65536) as sock:
        sock.sendall(get("/" + name))
        answer = b""
        # The head may come by itself.
        while not answer.partition(b"\r\n\r\n")[2]:
            answer += sock.recv(1000)
        os.truncate(path, 5000)
        try:
            answer += to_end(sock)
        except ConnectionResetError:
            pass
    got = len(answer.split(b"\r\n\r\n", 1)[1])
    assert 0 < got < size, (got, size)
    status, _, body = ask("/" + name)
    assert (status, len(body)) == (200, 5000)


def shrinking_between(name, path):
    """Cut between the look at its size and the first byte: zeros are no answer."""
    with connect() as sock:
        sock.sendall(get("/" + name))
        time.sleep(1)  # the server is held for two before each of its sends
        os.truncate(path, 10)
        try:
            answer = to_end(sock)
        except ConnectionResetError:
            answer = b"\r\n\r\n"
    head, body = answer.split(b"\r\n\r\n", 1)
    assert b"Content-Length: 3000" in head, head
    assert len(body) < 3000, body[-20:]


def vanishing(name, pid):
    """A peer that resets its connection in the middle: what was open for it is closed."""
    folder = f"/proc/{pid}/fd"
    assert ask("/small")[0] == 200  # all of its workers have what they need by then
    before = len(os.listdir(folder))
    for _ in range(5):
        sock = connect(receive=65536)
        sock.sendall(get("/" + name))
        sock.recv(1000)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    wait_until(lambda: len(os.listdir(folder)) <= before)
    assert ask("/small")[0] == 200


def slow_heads():
    """A request that does not come to its end is refused (408), however it drips."""
    begin = time.monotonic()
    with connect() as sock:
        answer = b""
        sock.settimeout(0.1)
        for byte in b"GET / HTTP/1.1\r\nHost: " + b"a" * 200:
            try:
                sock.sendall(bytes([byte]))
                answer += sock.recv(1000)
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            break
    assert status_of(answer) == 408, answer
    assert 1.9 < time.monotonic() - begin < 10, time.monotonic() - begin
    with connect() as sock:  # says nothing at all
        assert to_end(sock) == b""
    assert 3.9 < time.monotonic() - begin < 20
    with connect() as sock:  # an empty line begins no request (RFC 9112 §2.2)
        sock.sendall(get("/small") + b"\r\n")
        assert one_answer(sock)[0] == 200
        sock.sendall(b"\r\n")
        assert to_end(sock) == b""


def long_bodies():
    """A peer that goes on with a body that nobody reads gets its answer, not a reset."""
    with connect() as sock:
        sock.sendall(get("/small", "Content-Length: 1000\r\n").replace(b"GET", b"POST"))
        for _ in range(12):
            sock.sendall(b"more")
            time.sleep(0.3)
        assert status_of(to_end(sock)) == 405


def ends_early(name):
    """An answer that cannot go on ends at once."""
    with connect() as sock:
        sock.settimeout(5)
        sock.sendall(get("/" + name, "Connection: close\r\n"))
        try:
            head, body = to_end(sock).split(b"\r\n\r\n", 1)
            assert b"Content-Length: 1000\r\n" in head and body == b"", (head, body)
        except ConnectionResetError:
            pass


def slow_takers(name, path):
    """Who takes nothing is given up; who takes little, but steadily, gets it all."""
    size = os.path.getsize(path)
    steady = connect(receive=16384)
    stuck = connect(receive=16384)
    begin = time.monotonic()
    for sock in steady, stuck:
        sock.sendall(get("/" + name, "Connection: close\r\n"))
    got = 0
    while time.monotonic() - begin < 4:
        got += len(steady.recv(20000))
        time.sleep(0.02)
    steady.settimeout(20)
    while part := steady.recv(1 << 20):
        got += len(part)
    assert got > size, (got, size)
    try:
        rest = len(to_end(stuck))
        assert rest < size, rest
    except ConnectionResetError:
        pass


def full(places):
    """Connections beyond the bound wait, and are answered once there is room."""
    places = int(places)
    held = [connect() for _ in range(places)]
    for sock in held:
        sock.sendall(get("/small"))
        assert one_answer(sock)[0] == 200
    waiting = connect()
    waiting.sendall(get("/small"))
    waiting.settimeout(0.4)
    try:
        raise AssertionError(("answered beyond the bound", waiting.recv(1)))
    except TimeoutError:
        pass
    held[0].close()
    waiting.settimeout(10)
    assert one_answer(waiting)[0] == 200
    # The others are still there.
    for sock in held[1:]:
        sock.sendall(get("/small"))
        assert one_answer(sock)[0] == 200
    # Somebody else has waited for longer than an idle one may hold a place that is wanted.
    late = connect()
    late.sendall(get("/small"))
    late.settimeout(15)
    assert one_answer(late)[0] == 200


def many_idle(pid, count):
    """Ten thousand connections that say nothing: little memory, and everybody is still answered."""
    count = int(count)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count * 5 // 4 + 200  # the server's own: a file for each four connections, and some beside
    if hard != resource.RLIM_INFINITY and hard < needed:
        print(f"the hard limit of open files is {hard}, and {count} connections need {needed}: ulimit -Hn {needed}")
        sys.exit(77)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def resident():
        lines = open(f"/proc/{pid}/status").read().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024

    ask("/small")
    before = resident()
    idle = [connect() for _ in range(count)]
    # Half of them have been answered before they fall silent.
    for sock in idle[::2]:
        sock.sendall(get("/small"))
    for sock in idle[::2]:
        assert one_answer(sock)[0] == 200
    begin = time.monotonic()
    assert ask("/small")[0] == 200
    assert time.monotonic() - begin < 3, "a request beside them is answered late"
    each = (resident() - before) / count
    print(f"{count} idle connections, {each:.0f} bytes of the server's memory each")
    assert each < 2048, each
    for sock in (idle[0], idle[1], idle[count // 2], idle[-1]):
        sock.sendall(get("/small"))
        assert one_answer(sock)[0] == 200
    for sock in idle:
        sock.close()
    wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 100, 20)
    assert ask("/small")[0] == 200


def whole_listing(folder):
    """A folder of many names is listed whole, on one page, in order."""
    status, _, body = ask("/")
    assert status == 200
    links = Links(body.decode()).links
    assert links == ["./" + name for name in sorted(os.listdir(folder))], (len(links), links[:3])


def paged_listing(folder):
    """A page has 8 MiB at most, says so, and leads to the next: together they are all names, once, in order."""
    found, url, pages = [], "/", 0
    while url:
        status, _, body = ask(url)
        assert status == 200 and len(body) < (8 << 20) + 1000, (status, len(body))
        page = Links(body.decode())
        links = [urllib.parse.urljoin(url, link) for link in page.links]
        found += [urllib.parse.unquote(link) for link in links if "?" not in link and link != "/"]
        following = [link for link in links if "?" in link]
        assert not following or b"8 MiB" in body
        url = following[0] if following else None
        pages += 1
        assert pages < 10
    assert pages > 1
    assert found == ["/" + name for name in sorted(os.listdir(folder))], (len(found), pages)


def listed_is_served(*left_out):
    """Each link of a listing leads to something; what is refused is not there, and what is there has size and date."""
    status, _, body = ask("/sub/")
    assert status == 200
    links = Links(body.decode()).links
    assert links[0] == "../", links
    for link in links:
        path = urllib.parse.urljoin("/sub/", link)
        assert ask(path)[0] == 200, path
    names = {urllib.parse.unquote_to_bytes(link).removeprefix(b"./").removesuffix(b"/") for link in links[1:]}
    there = set(os.listdir(os.fsencode(left_out[0])))
    assert names == there - {os.fsencode(name) for name in left_out[1:]}, names
    assert b"12345 bytes, 13 Sep 2020 12:26" in body, body
    assert b"../" not in ask("/")[2]  # above the root there is nothing


def short_ranges(folder):
    """Every form of a range on files of 0 and 1 bytes, and on the longest that there may be (RFC 9110 §14.1.2)."""
    for name, forms in [
        # A suffix that is not empty can be satisfied, but nothing names 0 bytes of 0: the whole is sent.
        ("0", {"-5": 200, "-1": 200, "-0": 416, "0-": 416, "0-0": 416, "5-9": 416, "0-,-5": 200, "-0,0-": 416, "5-4": 200}),
        ("1", {"-5": b"0-0", "-1": b"0-0", "-0": 416, "0-": b"0-0", "0-0": b"0-0", "1-": 416, "0-99999999999999999999": b"0-0",
               "0-9,5-": b"0-0", "-0,0-0": b"0-0"}),
        ("longest", {"-5": b"9223372036854775802-9223372036854775806", "9223372036854775806-": b"9223372036854775806-9223372036854775806",
                     "9223372036854775807-": 416, "0-0": b"0-0", "9223372036854775806-99999999999999999999": b"9223372036854775806-9223372036854775806",
                     "9223372036854770000-9223372036854775000": b"9223372036854770000-9223372036854775000",
                     "18446744073709551616-": 416, "-0": 416}),
    ]:  # fmt: skip
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            continue  # a filesystem that has no file of that length
        size = os.path.getsize(path)
        for form, expect in forms.items():
            answer = raw(get("/" + name, f"Range: bytes={form}\r\nConnection: close\r\n"))
            head, body = answer.split(b"\r\n\r\n", 1)
            head = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            status = status_of(answer)
            if isinstance(expect, bytes):
                first, last = map(int, expect.split(b"-"))
                assert (status, head[b"Content-Range"]) == (206, b"bytes %s/%d" % (expect, size)), (name, form, status, head)
                assert len(body) == last - first + 1 == int(head[b"Content-Length"]), (name, form, len(body))
                with open(path, "rb") as file:
                    assert os.pread(file.fileno(), len(body), first) == body, (name, form)
            else:
                assert status == expect, (name, form, status)
                assert (head.get(b"Content-Range") == b"bytes */%d" % size) == (expect == 416), (name, form, head)
                if expect == 200:
                    assert (int(head[b"Content-Length"]), body) == (size, b""), (name, form)
        assert ask("/" + name, "HEAD")[1]["Content-Length"] == str(size)


def future(name, path):
    """A time of change that is still to come is told as now (RFC 9110 §8.8.2.1), and proves nothing."""
    size = os.path.getsize(path)
    for later in (1_000_000, 300_000_000_000):
        os.utime(path, (0, time.time() + later))
        status, headers, _ = ask("/" + name)
        assert status == 200 and headers["Last-Modified"] == headers["Date"], headers
        date, tag = headers["Last-Modified"], headers["ETag"]
        assert tag.startswith("W/"), tag
        coming = email.utils.formatdate(time.time() + 1_000_000, usegmt=True)
        earlier = email.utils.formatdate(time.time() - 10, usegmt=True)
        for expect, fields in [
            (200, {"If_Modified_Since": earlier}),
            (200, {"If_Modified_Since": coming}),
            (200, {"If_Modified_Since": date}),
            (412, {"If_Unmodified_Since": earlier}),
            (200, {"Range": "bytes=1-2", "If_Range": date}),
            (200, {"Range": "bytes=1-2", "If_Range": coming}),
            (200, {"Range": "bytes=1-2", "If_Range": tag}),
            (304, {"If_None_Match": tag}),
            (206, {"Range": "bytes=1-2"}),
        ]:
            status, headers, body = ask("/" + name, **fields)
            assert status == expect, (status, fields)
            if "Last-Modified" in headers:
                told = email.utils.parsedate_to_datetime(headers["Last-Modified"])
                assert told <= email.utils.parsedate_to_datetime(headers["Date"]), headers
            assert len(body) == {200: size, 206: 2}.get(status, len(body))
    os.utime(path, (0, -1))  # no date of HTTP's, but no error either
    assert ask("/" + name)[0] == 200


def content_of(path):
    with open(path, "rb", 0) as file:
        return b"".join(iter(lambda: file.read(65536), b""))


def made_up_lengths(folder, *names):
    """A file whose length its filesystem makes up is sent as a read finds it, with a length that is right."""
    for name in names:
        before = content_of(os.path.join(folder, name))
        status, headers, body = ask("/" + name)
        after = content_of(os.path.join(folder, name))
        assert status == 200 and len(body) > 0, (name, status, headers)
        assert before != after or body == before, (name, body[:80], before[:80])
        assert headers["Content-Length"] == str(len(body)) or headers["Transfer-Encoding"] == "chunked", headers
        status, again, nothing = ask("/" + name, "HEAD")
        assert (status, nothing) == (200, b""), name
        assert (again["Content-Length"] is None) == (headers["Content-Length"] is None), (headers, again)
        if before != after or headers["Content-Length"] is None:
            continue
        assert again["Content-Length"] == headers["Content-Length"]
        status, part, body = ask("/" + name, Range="bytes=1-3,-2")
        assert status == (206 if len(before) >= 5 else 200), (name, status)
        status, part, body = ask("/" + name, Range="bytes=-2")
        assert (status, body) == (206, before[-2:]), (name, status, body)
        status, part, body = ask("/" + name, Range=f"bytes={len(before)}-")
        assert (status, part["Content-Range"]) == (416, f"bytes */{len(before)}"), name
        if headers["ETag"]:
            assert ask("/" + name, If_None_Match=headers["ETag"])[0] == 304
            assert ask("/" + name, If_Match='"no"')[0] == 412


def read_in_chunks(name, path):
    """One too long to be measured first comes in chunks; over HTTP/1.0, until the end of the connection."""
    content = content_of(path)
    answer = raw(get("/" + name, "Connection: close\r\nRange: bytes=0-5\r\n"))
    head, rest = answer.split(b"\r\n\r\n", 1)
    assert status_of(answer) == 200 and b"Transfer-Encoding: chunked" in head and b"Content-Length" not in head, head
    body, largest = b"", 0
    while True:
        line, rest = rest.split(b"\r\n", 1)
        size = int(line, 16)
        largest = max(largest, size)
        body += rest[:size]
        assert rest[size : size + 2] == b"\r\n"
        rest = rest[size + 2 :]
        if size == 0:
            break
    assert rest == b"" and body == content, (len(body), len(content), rest[:20])
    answer = raw(get("/" + name, "Connection: keep-alive\r\n", version="1.0"))
    head, body = answer.split(b"\r\n\r\n", 1)
    assert b"chunked" not in head and b"Connection: close" in head and body == content, head
    with connect() as sock:  # the connection goes on after the chunks
        for _ in range(2):
            sock.sendall(get("/" + name))
            assert one_answer(sock) == (200, content)


def zeros(name, size):
    """A file that is one hole."""
    status, headers, body = ask("/" + name)
    assert (status, headers["Content-Length"], body) == (200, size, bytes(int(size))), (status, headers, len(body))
    status, headers, body = ask("/" + name, Range="bytes=4097-8191,-1")
    assert status == 206 and body.count(0) == 4096, status


def refused_by_the_kernel(name):
    """A file that cannot be read is an error with a status, not the beginning of an answer."""
    for method in "GET", "HEAD":
        status = ask("/" + name, method)[0]
        assert status in (403, 500, 503), (name, status)


def fifos_and_sockets(*names):
    """What is no file is refused at once; with a writer waiting, and on a connection that goes on."""
    for name in names:
        begin = time.monotonic()
        with connect() as sock:
            for _ in range(3):
                sock.sendall(get("/" + name))
                assert one_answer(sock)[0] == 403
            sock.sendall(get("/small"))
            assert one_answer(sock)[0] == 200
        assert time.monotonic() - begin < 10


def targets(name, path):
    """Every form of a target (RFC 9112 §3.2)."""
    content = open(path, "rb").read()
    for method, target, expect in [
        ("GET", f"/{name}", 200),
        ("GET", f"http://x/{name}", 200),
        ("GET", f"https://x/{name}", 200),
        ("GET", f"HTTPS://x/{name}", 200),
        ("GET", f"hTTp://other.example:8080/{name}?a=b", 200),
        ("GET", f"https://[2001:db8::1]:443/{name}", 200),
        ("GET", f"https://x//{name}", 200),
        ("GET", f"https://x/./{name}?http://y/", 200),
        ("GET", f"https://x/%{ord(name[0]):02x}{name[1:]}", 200),
        ("HEAD", f"https://x/{name}", 200),
        ("GET", "https://x", 200),
        ("GET", "https://x?q", 200),
        ("GET", "https://x/none", 404),
        ("GET", "https://x/../secret", 400),
        ("GET", f"https:///{name}", 400),
        ("GET", f"http://:80/{name}", 400),
        ("GET", f"http://user@x/{name}", 400),
        ("GET", f"http://x:y/{name}", 400),
        ("GET", f"ftp://x/{name}", 400),
        ("GET", f"https:/x/{name}", 400),
        ("GET", f"https:{name}", 400),
        ("GET", f"/{name}#part", 400),
        ("GET", f"https://x/{name}#part", 400),
        ("GET", name, 400),
        ("GET", "x:80", 400),
        ("GET", "*", 400),
        ("HEAD", "*", 400),
        ("OPTIONS", "*", 200),
        ("OPTIONS", "https://x", 200),
        ("OPTIONS", f"/{name}", 405),
        ("CONNECT", "x:80", 405),
        ("DELETE", "*", 405),
        ("BREW", "*", 501),
    ]:
        answer = raw(get(target, "Connection: close\r\n").replace(b"GET", method.encode(), 1))
        assert status_of(answer) == expect, (method, target, answer[:60])
        assert answer.count(b"HTTP/1.1") == 1
        head, body = answer.split(b"\r\n\r\n", 1)
        if method == "GET" and expect == 200 and name in target:
            assert body == content, target
        if (method, expect) == ("OPTIONS", 200):
            assert b"Allow: GET, HEAD, OPTIONS" in head and b"Content-Length: 0" in head and body == b"", answer
    # Host must be there and right in any case, and is not what counts (§3.2.2).
    assert status_of(raw(f"GET https://x/{name} HTTP/1.1\r\n\r\n".encode())) == 400
    assert status_of(raw(f"GET https://x/{name} HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\n".encode())) == 200


def random_targets(secret, seed):
    """No target ends the server, leads out, or is answered with anything but a status."""
    rng = random.Random(int(seed))
    pieces = ["/", "//", ".", "..", "%", "%2e", "%2E%2e", "%2f", "%5c", "\\", "%00", "%zz", "?", "#", ":", "@", "*", "http://", "HTTPS://", "x",
              "[::1]", "small", "secret", "sub", "a b", "\t", "\xff", "\xc3\xbc", "%ff", "%c0%ae", "\r", "\n", "\x00", ";", "&", "=", "~", "proc", "x" * 300]  # fmt: skip
    statuses = {}
    for _ in range(600):
        method = rng.choice(["GET", "GET", "GET", "HEAD", "OPTIONS", "POST"])
        target = "".join(rng.choice(pieces) for _ in range(rng.randrange(1, 9)))
        request = f"{method} {target} HTTP/1.{rng.randrange(2)}\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1")
        answer = raw(request, half_close=True)
        if answer:
            status = status_of(answer)
            assert status in (200, 301, 400, 403, 404, 405, 414, 501, 505), (request, answer[:60])
            statuses[status] = statuses.get(status, 0) + 1
        else:
            assert b"\n" in request.split(b" HTTP/1.")[0] or b"\r" in request, request
        assert secret.encode() not in answer and b"root:" not in answer, request
    assert {200, 400, 404} <= set(statuses), statuses
    assert ask("/small")[0] == 200


def no_file_left(path, count, times=1):
    """Where no file may be opened for one more answer, it says so (503); later ones are right. What fits into a socket is
    asked for several times at once: between two answers a place is free."""
    held = []
    for _ in range(int(count)):
        sock = connect(receive=4096, segment=536)
        sock.sendall(get(path) * int(times))
        held.append((sock, int(sock.recv(12)[9:12])))
    statuses = [status for _, status in held]
    assert set(statuses) == {200, 503}, statuses
    assert int(times) > 1 or statuses == sorted(statuses), statuses
    for sock, _ in held:
        sock.close()
    wait_until(lambda: ask("/small")[0] == 200)
    wait_until(lambda: ask(path)[0] == 200)


def finishing(name, path, pid):
    """Ctrl-C: an answer under way is finished, an idle connection is closed, nobody new is let in."""
    idle = connect()
    with connect(receive=262144) as sock:
        sock.sendall(get("/" + name))
        answer = sock.recv(1000)
        os.kill(int(pid), signal.SIGINT)
        assert to_end(idle) == b""
        try:
            raise AssertionError(("let in", connect()))
        except ConnectionRefusedError:
            pass
        answer += to_end(sock)
    assert b"".join(answer.split(b"\r\n\r\n", 1)[1:]) == open(path, "rb").read()


if __name__ == "__main__":
    claim, port, *arguments = sys.argv[1:]
    port = int(port)
    globals()[claim](*arguments)

package faults

import (
	"slices"
	"time"
)

// Table is all faults.
func Table() []Case {
	return slices.Concat(connections(), bodies(), ranges(), statuses(), redirects(), logins(), manifests(), answers(), referrers())
}

var (
	layer = []string{"layer"}
	index = []string{"index"}
	amd64 = []string{"amd64"}
	tag   = []string{"resolve"}
)

func connections() []Case {
	const class = "connection"
	certified := func(host string, c certificate) func(*Proxy) string {
		return func(p *Proxy) string { return p.overTLS(host, c) }
	}
	return []Case{
		{Class: class, Name: "refused", Registry: func(*Proxy) string { return "url = \"http://127.0.0.1:1\"\n" }, Code: 3, Says: `cannot be reached: 127.0.0.1:1: connection refused; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "no such name", Registry: func(*Proxy) string { return "url = \"http://registry.invalid\"\n" }, Code: 3, Says: `cannot be reached: registry.invalid: ...; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "reset at once", Fault: resetAtOnce, Code: 3, Says: `cannot be reached: $PROXY: connection reset by peer; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "reset at once, the first time", Fault: once(resetAtOnce), Client: "200 200 200"},
		{Class: class, Name: "closed without an answer", Fault: hangUp, Code: 3, Says: `cannot be reached: $PROXY: the connection was closed without an answer; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "no answer", Fault: stall(-1), Impatient: true, Code: 3, Says: `cannot be reached: $PROXY does not answer; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "no answer for the layer", On: layer, Fault: stall(-1), Impatient: true, Code: 3, Says: `cannot be reached: $PROXY does not answer; check the network and the registry's address`, Left: "index amd64", Client: "200 200 broken"},
		{Class: class, Name: "a head of one byte a second", Fault: trickle("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"), Impatient: true, Code: 3, Says: `cannot be reached: $PROXY does not answer; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "a head without end", Fault: endless("HTTP/1.1 200 OK\r\n", "X-Header: more and more\r\n"), Code: 3, Says: `cannot be reached: $PROXY: its answer is not HTTP: server response headers exceeded 262144 bytes; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "another protocol", Fault: raw("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), Code: 3, Says: `cannot be reached: $PROXY: its answer is not HTTP: malformed HTTP status code "Debian-2"; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "a status that is none", Fault: raw("HTTP/1.1 abc What\r\n\r\n"), Code: 3, Says: `cannot be reached: $PROXY: its answer is not HTTP: malformed HTTP status code "abc"; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "nothing but 103", Fault: endless("HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n"), Code: 3, Says: `cannot be reached: $PROXY: its answer is not HTTP: server response headers exceeded 262144 bytes; check the network and the registry's address`},
		{Class: class, Name: "TLS: unknown authority", Registry: certified("127.0.0.1", certificate{}), Code: 3, Says: `cannot be reached: ...: its certificate is signed by an unknown authority; give the authority's certificate: [registry."registry.test"] ca = "ca.pem"`, Client: "503"},
		{Class: class, Name: "TLS: another host's certificate", Registry: certified("localhost", certificate{trusted: true}), Code: 3, Says: `cannot be reached: ...: its certificate is not valid for any names, but wanted to match localhost; the certificate is another host's: check the registry's address`, Client: "503"},
		{Class: class, Name: "TLS: expired", Registry: certified("127.0.0.1", certificate{trusted: true, expired: true}), Code: 3, Says: `cannot be reached: ...: its certificate has expired or is not yet valid: current time ... is after ...; check the registry's certificate and this machine's clock`, Client: "503"},
		{Class: class, Name: "TLS: good", Registry: certified("127.0.0.1", certificate{trusted: true}), Client: "200 200 200"},
		{Class: class, Name: "TLS: not spoken", Registry: func(p *Proxy) string { return "url = \"https://" + p.address() + "\"\n" }, Code: 3, Says: `cannot be reached: $PROXY does not speak TLS; if it speaks plain HTTP, say so: [registry."registry.test"] url = "http://$PROXY"`, Client: "503"},
		{Class: class, Name: "TLS: spoken unasked", Registry: func(p *Proxy) string { return "url = \"http://" + p.tlsAddress(certificate{}) + "\"\n" }, Code: 3, Says: `not supported: ... answered 400 Bad Request; check the registry's address; if it speaks TLS, say so: [registry."registry.test"] url = "https://..."`, Client: "503"},
	}
}

func bodies() []Case {
	const class = "body"
	return []Case{
		{Class: class, Name: "cut before the first byte, always", On: layer, Fault: cut(0), Code: 3, Says: `the upstream fails: $PROXY broke off after 0 of 200000 bytes of $layer: the connection was closed too early; run the command again: it goes on where it stopped`, Left: "index amd64", Client: "200 200 503|200 200 broken"},
		{Class: class, Name: "cut after the first byte", On: layer, Fault: once(cut(1)), Client: "200 200 200"},
		{Class: class, Name: "cut after the first byte, always", On: layer, Fault: cut(1), Code: 3, Says: `the upstream fails: $PROXY broke off after 4 of 200000 bytes of $layer: the connection was closed too early; run the command again: it goes on where it stopped`, Left: "index amd64 layer:4", Client: "200 200 broken"},
		{Class: class, Name: "cut in the middle", On: layer, Fault: once(cut(layerSize / 2)), Client: "200 200 200"},
		{Class: class, Name: "cut in the middle, and then nothing", On: layer, Fault: both(once(cut(layerSize/2)), after(1, status(503))), Code: 3, Says: `the upstream fails: $PROXY answered 503: the fault; try again later`, Left: "index amd64 layer:100000", Client: "200 200 broken"},
		{Class: class, Name: "cut before the last byte", On: layer, Fault: once(cut(-1)), Client: "200 200 200"},
		{Class: class, Name: "cut before the last byte, and then nothing", On: layer, Fault: both(once(cut(-1)), after(1, status(503))), Code: 3, Says: `the upstream fails: $PROXY answered 503: the fault; try again later`, Left: "index amd64 layer:199999", Client: "200 200 broken"},
		{Class: class, Name: "cut every 50 kB", On: layer, Fault: cut(50_000), Client: "200 200 200"},
		{Class: class, Name: "reset in the middle", On: layer, Fault: once(reset(layerSize / 2)), Client: "200 200 200"},
		{Class: class, Name: "reset in the middle, and then nothing", On: layer, Fault: both(once(reset(layerSize/2)), after(1, hangUp)), Code: 3, Says: `cannot be reached: $PROXY: the connection was closed without an answer; check the network and the registry's address`, Left: "index amd64 layer:...", Client: "200 200 broken"},
		{Class: class, Name: "stalled in the middle", On: layer, Fault: once(stall(layerSize / 2)), Impatient: true, Client: "200 200 200|200 200 broken"},
		{Class: class, Name: "stalled in the middle, always", On: layer, Fault: stall(500), Impatient: true, Code: 3, Says: `the upstream fails: $PROXY broke off after 1000 of 200000 bytes of $layer: next to nothing came for 6s; run the command again: it goes on where it stopped`, Left: "index amd64 layer:1000", Client: "200 200 broken"},
		{Class: class, Name: "one byte a second", On: layer, Fault: trickle(""), Impatient: true, Code: 3, Says: `the upstream fails: $PROXY broke off after ... of 200000 bytes of $layer: next to nothing came for 6s; run the command again: it goes on where it stopped`, Left: "index amd64 layer:...", Client: "200 200 broken"},
		{Class: class, Name: "manifest stalled", On: amd64, Fault: stall(50), Impatient: true, Code: 3, Says: `the upstream fails: $PROXY broke off: next to nothing came for 6s; try again later`, Left: "index", Client: "200 503"},
		{Class: class, Name: "manifest one byte a second", On: amd64, Fault: trickle(""), Impatient: true, Code: 3, Says: `the upstream fails: $PROXY broke off: next to nothing came for 6s; try again later`, Left: "index"},
		{Class: class, Name: "manifest cut", On: amd64, Fault: cut(100), Code: 3, Says: `the upstream fails: $PROXY broke off: the connection was closed too early; try again later`, Left: "index", Client: "200 503"},
		{Class: class, Name: "manifest cut once", On: amd64, Fault: once(cut(100)), Client: "200 200 200"},
		{Class: class, Name: "longer, and says so", On: layer, Fault: longer(10), Code: 3, Says: `content does not match its digest: $PROXY has 200010 bytes for $layer, which has 200000 bytes; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "shorter, and says so", On: layer, Fault: shorter(10), Code: 3, Says: `content does not match its digest: $PROXY has 199990 bytes for $layer, which has 200000 bytes; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "of no length that is told", On: layer, Fault: unsized, Client: "200 200 200"},
		{Class: class, Name: "of no length, and longer", On: layer, Fault: both(longer(10), unsized), Code: 3, Says: `content does not match its digest: $PROXY has more for $layer, which has 200000 bytes; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "of no length, and shorter", On: layer, Fault: both(shorter(10), unsized, resumed(status(503))), Code: 3, Says: `the upstream fails: $PROXY answered 503: the fault; try again later`, Left: "index amd64 layer:199990", Client: "200 200 broken"},
		{Class: class, Name: "without end", On: layer, Fault: both(header("Content-Length", "1073741824"), endless("", "x")), Code: 3, Says: `content does not match its digest: $PROXY has 1073741824 bytes for $layer, which has 200000 bytes; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "without end or length", On: layer, Fault: both(unsized, endless("", "x")), Code: 3, Says: `content does not match its digest: $PROXY has more for $layer, which has 200000 bytes; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "chunked", On: layer, Fault: chunked(hex, "0\r\n\r\n"), Client: "200 200 200"},
		{Class: class, Name: "chunked, the end is missing", On: layer, Fault: chunked(hex, ""), Client: "200 200 200"},
		{Class: class, Name: "chunked, a size that is none", On: layer, Fault: chunked(func(int) string { return "zz" }, "0\r\n\r\n"), Code: 3, Says: `the upstream fails: $PROXY broke off after 0 of 200000 bytes of $layer: invalid byte in chunk length; run the command again: it goes on where it stopped`, Left: "index amd64", Client: "200 200 503|200 200 broken"},
		{Class: class, Name: "wrong bytes, the right length", On: layer, Fault: flip(layerSize / 2), Code: 3, Says: `content does not match its digest: $PROXY sent something else for $layer; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "wrong last byte", On: layer, Fault: flip(-1), Code: 3, Says: `content does not match its digest: $PROXY sent something else for $layer; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "wrong bytes behind those of an earlier run", On: layer, Fault: once(flip(0)), Have: 10, Client: "200 200 200|200 200 broken"},
		{Class: class, Name: "manifest with wrong bytes", On: amd64, Fault: flip(3), Code: 3, Says: `content does not match its digest: $PROXY sent something else for $amd64; try again; if it stays, the registry or something between is broken`, Left: "index", Client: "200 503"},
		{Class: class, Name: "gzip that nobody asked for", On: layer, Fault: zipped, Code: 3, Says: `content does not match its digest: $PROXY has 200088 bytes for $layer, which has 200000 bytes, with Content-Encoding "gzip", which nobody asked for; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "manifest in gzip that nobody asked for", On: amd64, Fault: zipped, Code: 3, Says: `not a registry's answer: $PROXY sent a manifest that is no JSON for $amd64, with Content-Encoding "gzip", which nobody asked for; check the registry's address`, Left: "index", Client: "200 503"},
		{Class: class, Name: "empty", On: layer, Fault: body(""), Code: 3, Says: `content does not match its digest: $PROXY has 0 bytes for $layer, which has 200000 bytes; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
	}
}

func ranges() []Case {
	const class, have = "range", 50_000
	return []Case{
		{Class: class, Name: "sent as it should", On: layer, Have: have, Client: "200 200 200"},
		{Class: class, Name: "ignored: 200 to a Range", On: layer, Have: have, Fault: wholly, Client: "200 200 200"},
		{Class: class, Name: "refused: 416", On: layer, Have: have, Fault: resumed(bare(416)), Client: "200 200 200"},
		{Class: class, Name: "206 from further on", On: layer, Have: have, Fault: resumed(part("60000-", "")), Client: "200 200 200"},
		{Class: class, Name: "206 from before", On: layer, Have: have, Fault: resumed(part("40000-", "")), Client: "200 200 200"},
		{Class: class, Name: "206 of a part of it", On: layer, Have: have, Fault: once(part("50000-59999", "")), Client: "200 200 200"},
		{Class: class, Name: "206 that says another range than it sends", On: layer, Have: have, Fault: resumed(part("60000-", "bytes 50000-199999/200000")), Client: "200 200 200"},
		{Class: class, Name: "206 with other bytes than it says", On: layer, Have: have, Fault: once(part("40000-189999", "bytes 50000-199999/200000")), Client: "200 200 200|200 200 broken"},
		{Class: class, Name: "206 without saying which", On: layer, Have: have, Fault: resumed(header("Content-Range", "")), Client: "200 200 200"},
		{Class: class, Name: "206 of a blob of another size", On: layer, Have: have, Fault: resumed(part("50000-", "bytes 50000-199999/300000")), Code: 3, Says: `content does not match its digest: $PROXY has 300000 bytes for $layer, which has 200000 bytes; try again; if it stays, the registry or something between is broken`, Left: "index amd64 layer:50000", Client: "200 200 broken"},
		{Class: class, Name: "206 with a range that is none", On: layer, Have: have, Fault: resumed(header("Content-Range", "bytes */200000")), Client: "200 200 200"},
		{Class: class, Name: "206 with several parts", On: layer, Have: have, Fault: resumed(both(header("Content-Type", "multipart/byteranges; boundary=x"), header("Content-Range", ""))), Client: "200 200 200"},
		{Class: class, Name: "206 that nobody asked for", On: layer, Fault: part("0-99999", ""), Code: 3, Says: `not a registry's answer: $PROXY answered 206 Partial Content; check the registry's address`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "200 with a Content-Range", On: layer, Have: have, Fault: both(wholly, header("Content-Range", "bytes 50000-199999/200000")), Client: "200 200 200"},
	}
}

func statuses() []Case {
	const class = "status"
	return []Case{
		{Class: class, Name: "404 for the image", On: tag, Fault: status(404), Code: 3, Says: `not found upstream; check the name`, Client: "404"},
		{Class: class, Name: "404 for one platform", On: amd64, Fault: status(404), Code: 3, Says: `not found upstream: its manifest $amd64; the registry has lost a part of this image: ask whoever pushed it`, Left: "index", Client: "200 404"},
		{Class: class, Name: "404 for a layer", On: layer, Fault: status(404), Code: 3, Says: `not found upstream: its layer $layer; the registry has lost a part of this image: ask whoever pushed it`, Left: "index amd64", Client: "200 200 404"},
		{Class: class, Name: "403 for the image", On: tag, Fault: status(403), Code: 3, Says: `access denied: $PROXY answered 403; check that this account may pull the image`, Client: "404"},
		{Class: class, Name: "403 for all, with no body", Fault: bare(403), Code: 3, Says: `access denied: $PROXY answered 403; check that this account may pull the image`, Client: "404"},
		{Class: class, Name: "403 for a layer", On: layer, Fault: status(403), Code: 3, Says: `access denied: $PROXY answered 403: the fault; check that this account may pull the image`, Left: "index amd64", Client: "200 200 404"},
		{Class: class, Name: "500 once", Fault: once(status(500)), Client: "200 200 200"},
		{Class: class, Name: "500 once for the layer", On: layer, Fault: once(status(500)), Client: "200 200 200"},
		{Class: class, Name: "503 for long", Fault: status(503), Code: 3, Says: `the upstream fails: $PROXY answered 503 Service Unavailable; try again later`, Client: "503"},
		{Class: class, Name: "503 for the layer, for long", On: layer, Fault: bare(503), Code: 3, Says: `the upstream fails: $PROXY answered 503 Service Unavailable; try again later`, Left: "index amd64", Client: "200 200 503|200 200 broken"},
		{Class: class, Name: "429 once, for a second", On: tag, Fault: once(status(429, header("Retry-After", "1"))), Client: "503"},
		{Class: class, Name: "429 once, until a date", On: tag, Fault: once(status(429, retryAfter(2*time.Second))), Client: "503"},
		{Class: class, Name: "429 once, for an unknown time", On: tag, Fault: once(bare(429)), Client: "503"},
		{Class: class, Name: "429 for an hour", Fault: status(429, header("Retry-After", "3600")), Code: 3, Says: `the upstream's rate limit is used up: $PROXY answered 429, try again in 1h0m0s; wait, or log in for a larger limit: docker login $PROXY`, Client: "503"},
		{Class: class, Name: "429 until tomorrow", Fault: status(429, retryAfter(24*time.Hour)), Code: 3, Says: `the upstream's rate limit is used up: $PROXY answered 429, try again in ...; wait, or log in for a larger limit: docker login $PROXY`, Client: "503"},
		{Class: class, Name: "429 until yesterday", Fault: status(429, retryAfter(-24*time.Hour)), Code: 3, Says: `the upstream's rate limit is used up: $PROXY answered 429; wait, or log in for a larger limit: docker login $PROXY`, Client: "503"},
		{Class: class, Name: "429 for longer than numbers go", Fault: status(429, header("Retry-After", "99999999999999999999")), Code: 3, Says: `the upstream's rate limit is used up: $PROXY answered 429; wait, or log in for a larger limit: docker login $PROXY`, Client: "503"},
		{Class: class, Name: "429 for a time that is none", Fault: bare(429, header("Retry-After", "soon")), Code: 3, Says: `the upstream's rate limit is used up: $PROXY answered 429; wait, or log in for a larger limit: docker login $PROXY`, Client: "503"},
		{Class: class, Name: "429 for the layer, once", On: layer, Fault: once(status(429, header("Retry-After", "1"))), Client: "200 200 503"},
		{Class: class, Name: "204", Fault: bare(204), Code: 3, Says: `not a registry's answer: $PROXY answered 204 No Content; check the registry's address`, Client: "503"},
		{Class: class, Name: "418", Fault: status(418), Code: 3, Says: `not supported: $PROXY answered 418 I'm a teapot; check the registry's address`, Client: "503"},
		{Class: class, Name: "999", Fault: status(999), Code: 3, Says: `not supported: $PROXY answered 999; check the registry's address`, Client: "503"},
		{Class: class, Name: "an error of a megabyte", Fault: both(status(500), longer(1<<20)), Code: 3, Says: `the upstream fails: $PROXY answered 500 Internal Server Error; try again later`, Client: "503"},
		{Class: class, Name: "an error that forges lines", On: tag, Fault: both(status(403), body(`{"errors":[{"code":"DENIED","message":"no\nmirrorctl: all is well\u001b[2J\u202e"}]}`)), Code: 3, Says: `access denied: $PROXY answered 403; check that this account may pull the image`},
	}
}

func redirects() []Case {
	const class = "redirect"
	return []Case{
		{Class: class, Name: "in a circle", Fault: redirect("http://$PROXY$PATH"), Code: 3, Says: `the upstream fails: $PROXY redirects without end; check the registry's address`, Client: "503"},
		{Class: class, Name: "of the layer in a circle", On: layer, Fault: redirect("http://$PROXY$PATH"), Code: 3, Says: `the upstream fails: $PROXY redirects without end; check the registry's address`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "to another host", On: layer, Fault: elsewhere, Client: "200 200 200"},
		{Class: class, Name: "to a host that is down", On: layer, Fault: redirect("http://127.0.0.1:1/layer"), Code: 3, Says: `cannot be reached: 127.0.0.1:1, where $PROXY leads: connection refused; check the network and the registry's address`, Left: "index amd64", Client: "200 200 503|200 200 broken"},
		{Class: class, Name: "to nowhere", On: layer, Fault: bare(307), Code: 3, Says: `the upstream fails: $PROXY redirects without saying where to; check the registry's address`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "to something that is no address", On: layer, Fault: redirect("http://[::1"), Code: 3, Says: `the upstream fails: $PROXY redirects to something that is no address; check the registry's address`, Left: "index amd64"},
		{Class: class, Name: "to a file", On: layer, Fault: redirect("file:///etc/passwd"), Code: 3, Says: `the upstream fails: $PROXY redirects to something that is no address of a server; check the registry's address`, Left: "index amd64", Client: "200 200 503"},
	}
}

func logins() []Case {
	const class = "login"
	parts := []string{"part0", "part1", "part2", "part3", "part4", "part5", "part6", "part7"}
	return []Case{
		{Class: class, Name: "401", Fault: status(401), Code: 3, Says: `unauthorized: $PROXY answered 401; run docker login $PROXY, or give username and password in mirrorctl.toml; an image that does not exist can look like this too`, Client: "404"},
		{Class: class, Name: "401 with a challenge that is none", Fault: status(401, header("Www-Authenticate", `Bearer realm=`)), Code: 3, Says: `unauthorized: $PROXY answered 401; run docker login $PROXY, or give username and password in mirrorctl.toml; an image that does not exist can look like this too`},
		{Class: class, Name: "401 after half the blobs", Image: "many", On: parts, Fault: after(4, status(401)), Code: 3, Says: `unauthorized: $PROXY answered 401: the fault; run docker login $PROXY, or give username and password in mirrorctl.toml; an image that does not exist can look like this too`, Left: "*"},
		{Class: class, Name: "a token for each request", Image: "many", Fault: tokens(1<<20, nil), Client: "200 200"},
		{Class: class, Name: "a token that expires", Image: "many", Fault: tokens(10, nil), Client: "200 200"},
		{Class: class, Name: "a token that is never good", Fault: tokens(0, nil), Code: 3, Says: `unauthorized: $PROXY answered 401; run docker login $PROXY, or give username and password in mirrorctl.toml; an image that does not exist can look like this too`, Client: "404"},
		{Class: class, Name: "the token server fails", Fault: tokens(1<<20, status(503)), Code: 3, Says: `the upstream fails: $PROXY, which gives the tokens for $PROXY, answered 503; try again later`, Client: "503"},
		{Class: class, Name: "the token server sends HTML", Fault: tokens(1<<20, html), Code: 3, Says: `the upstream fails: $PROXY, which gives the tokens for $PROXY, sent none; check the network and the registry's address`},
		{Class: class, Name: "the token server says nothing", Fault: tokens(1<<20, stall(-1)), Impatient: true, Code: 3, Says: `cannot be reached: $PROXY does not answer; check the network and the registry's address`, Client: "503"},
		{Class: class, Name: "the token server sends no end", Fault: tokens(1<<20, both(header("Content-Length", "1073741824"), endless("", " "))), Code: 3, Says: `the upstream fails: $PROXY, which gives the tokens for $PROXY, sent none; check the network and the registry's address`},
	}
}

func manifests() []Case {
	const class = "manifest"
	const broken, mend = "not a registry's answer: $PROXY sent ", "; check the registry's address"
	const bad, ask = "not a valid image: ", "; clients may refuse it too: ask whoever pushed it"
	// What a client gets of the tag, and what sync says.
	odd := func(image, client, says string) Case {
		return Case{Class: class, Name: image, Image: image, Code: 3, Says: says, Left: "...", Client: client}
	}
	fine := func(image string) Case {
		return Case{Class: class, Name: image, Image: image, Client: "200"}
	}
	return []Case{
		fine("zero"), fine("keys-unsorted"), fine("4MiB"), fine("repeated"),
		odd("4MiB-and-1", "503", "too large: a manifest from $PROXY has more than 4 MiB; clients refuse it too: ask whoever pushed it"),
		odd("keys-twice", "503", bad+`$keys-twice: manifest: key "layers" is there twice`+ask),
		odd("keys-twice-in-case", "503", bad+`$keys-twice-in-case: manifest: key "Layers" is there twice`+ask),
		odd("both", "503", bad+"$both: manifest is both an index and an image"+ask),
		odd("other-type-within", "503", broken+"a manifest that is no application/vnd.oci.image.manifest.v1+json for $other-type-within"+mend),
		odd("no-json", "503", broken+"a manifest that is no JSON for $no-json"+mend),
		odd("cut-json", "503", broken+"a manifest that is no JSON for $cut-json"+mend),
		odd("array", "503", broken+"a manifest that is no object but array for $array"+mend),
		odd("null", "503", bad+"$null: manifest has no config"+ask),
		odd("empty", "503", broken+"a manifest that is no application/vnd.oci.image.manifest.v1+json for $nothing"+mend),
		odd("no-config", "503", bad+"$no-config: manifest has no config"+ask),
		odd("layers-no-list", "503", broken+"a manifest in which layers is string for $layers-no-list"+mend),
		odd("nested-json", "503", broken+"a manifest that is no JSON for $nested-json"+mend),
		odd("size-negative", "503", bad+"$size-negative: manifest lists $shared with size -1"+ask),
		odd("size-huge", "200", "content does not match its digest: $PROXY has 5000 bytes for $shared, which has 4611686018427387904 bytes; try again; if it stays, the registry or something between is broken"),
		odd("size-beyond", "503", broken+"a manifest in which ...size is number 99999999999999999999 for $size-beyond"+mend),
		odd("size-fraction", "503", broken+"a manifest in which ...size is number 5000.5 for $size-fraction"+mend),
		odd("size-text", "503", broken+"a manifest in which ...size is string for $size-text"+mend),
		odd("size-missing", "503", bad+"$size-missing: manifest lists $shared without its size"+ask),
		odd("digest-none", "503", bad+`$digest-none: manifest lists a bad descriptor: digest "../../etc/passwd": invalid checksum digest format`+ask),
		odd("digest-short", "503", bad+`$digest-short: manifest lists a bad descriptor: digest "sha256:00": invalid checksum digest length`+ask),
		odd("digest-md5", "503", bad+`$digest-md5: manifest lists a bad descriptor: digest "md5:d41d8cd98f00b204e9800998ecf8427e": unsupported digest algorithm`+ask),
		odd("schema1", "503", broken+"a manifest that is no application/vnd.docker.distribution.manifest.v1+prettyjws for $schema1"+mend),
		odd("deep", "200", "not supported: indexes are nested more than 16 deep"+ask),
		odd("self", "200", "content does not match its digest: $PROXY sent something else for $self; try again; if it stays, the registry or something between is broken"),
		odd("wide", "200", "too large: the image has more than 10000 manifests and blobs"+ask),
	}
}

func answers() []Case {
	const class = "answer"
	return []Case{
		{Class: class, Name: "HTML for all", Fault: html, Code: 3, Says: `not a registry's answer: $PROXY answered with "text/html; charset=utf-8"; check the registry's address`, Client: "503"},
		{Class: class, Name: "HTML for the index", On: index, Fault: html, Code: 3, Says: `not a registry's answer: $PROXY answered with "text/html; charset=utf-8" for $index; check the registry's address`},
		{Class: class, Name: "HTML for a manifest", On: amd64, Fault: html, Code: 3, Says: `not a registry's answer: $PROXY answered with "text/html; charset=utf-8" for $amd64; check the registry's address`, Left: "index", Client: "200 503"},
		{Class: class, Name: "HTML for the layer", On: layer, Fault: html, Code: 3, Says: `content does not match its digest: $PROXY has 70 bytes for $layer, which has 200000 bytes; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "digest of something else, with the tag", On: tag, Fault: header("Docker-Content-Digest", digestOf("else")), Code: 3, Says: `not found upstream: its manifest ...; the registry has lost a part of this image: ask whoever pushed it`, Client: "503"},
		{Class: class, Name: "digest of something else, with a manifest", On: amd64, Fault: header("Docker-Content-Digest", digestOf("else")), Client: "200 200 200"},
		{Class: class, Name: "digest of something else, with the layer", On: layer, Fault: header("Docker-Content-Digest", digestOf("else")), Client: "200 200 200"},
		{Class: class, Name: "digest that is none", Fault: header("Docker-Content-Digest", "sha256:0"), Client: "200 200 200"},
		{Class: class, Name: "no digest", Fault: header("Docker-Content-Digest", ""), Client: "200 200 200"},
		{Class: class, Name: "media type of text", On: amd64, Fault: header("Content-Type", "text/plain"), Code: 3, Says: `not a registry's answer: $PROXY answered with "text/plain" for $amd64; check the registry's address`, Left: "index", Client: "200 503"},
		{Class: class, Name: "media type of an index for an image", On: amd64, Fault: header("Content-Type", "application/vnd.oci.image.index.v1+json"), Code: 3, Says: `not a registry's answer: $PROXY sent a manifest that is no application/vnd.oci.image.index.v1+json for $amd64; check the registry's address`, Left: "index", Client: "200 503"},
		{Class: class, Name: "no media type", On: amd64, Fault: header("Content-Type", ""), Client: "200 200 200"},
		{Class: class, Name: "no media type with the tag", On: tag, Fault: header("Content-Type", ""), Client: "200 200 200"},
		{Class: class, Name: "405 to HEAD", On: tag, Fault: heads(bare(405)), Client: "200 200 200"},
		{Class: class, Name: "the tag has moved meanwhile", On: index, Fault: contentOf("old-index"), Code: 3, Says: `content does not match its digest: $PROXY sent something else for $index; try again; if it stays, the registry or something between is broken`},
		{Class: class, Name: "another image's layer", On: layer, Fault: contentOf("shared"), Code: 3, Says: `content does not match its digest: $PROXY has 5000 bytes for $layer, which has 200000 bytes; try again; if it stays, the registry or something between is broken`, Left: "index amd64", Client: "200 200 503"},
		{Class: class, Name: "another platform's manifest", On: amd64, Fault: contentOf("arm64"), Code: 3, Says: `content does not match its digest: $PROXY sent something else for $amd64; try again; if it stays, the registry or something between is broken`, Left: "index", Client: "200 503"},
	}
}

func referrers() []Case {
	const class = "referrers"
	only := []string{"referrers"}
	lists := func(format string) Fault { return body(`{"schemaVersion":2,"manifests":` + format + `}`) }
	return []Case{
		{Class: class, Name: "404", On: only, Fault: status(404)},
		{Class: class, Name: "HTML", On: only, Fault: html},
		{Class: class, Name: "503 for long", On: only, Fault: status(503), Code: 3, Says: `the upstream fails: $PROXY answered 503: the fault; try again later`, Left: "*"},
		{Class: class, Name: "cut", On: only, Fault: cut(20), Code: 3, Says: `the upstream fails: $PROXY broke off: the connection was closed too early; try again later`, Left: "*"},
		{Class: class, Name: "no answer", On: only, Fault: stall(-1), Impatient: true, Code: 3, Says: `cannot be reached: $PROXY does not answer; check the network and the registry's address`, Left: "*"},
		{Class: class, Name: "pages without end", On: only, Fault: header("Link", `<?last=x>; rel="next"`), Code: 3, Says: `too large: $PROXY lists referrers on more than 100 pages; ask whoever runs the registry`, Left: "*"},
		{Class: class, Name: "one that is gone", Warns: "referrer left out", On: only, Fault: lists(`[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digestOf("gone") + `","size":7}]`)},
		{Class: class, Name: "one that refers to something else", Warns: "referrer left out", On: only, Fault: lists(`[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + newRepository().byName("old").Digest.String() + `","size":7}]`)},
		{Class: class, Name: "of 4 MiB and more", On: only, Fault: longer(4 << 20), Code: 3, Says: `too large: a list of referrers from $PROXY has more than 4 MiB; ask whoever runs the registry`, Left: "*"},
	}
}

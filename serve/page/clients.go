package page

import (
	"net/http"
	"slices"

	"mirrorctl/cmd/client"
)

// clientsPage is the content of clients.html.
type clientsPage struct {
	All    []client.Client
	Chosen string
	About  string
	Config client.Config
	Error  string // why this client cannot use this mirror
}

// clients shows how a client is pointed at this mirror, as mirrorctl client
// prints it. A login's password is never a part of it, as the page knows none.
func (h *Handler) clients(w http.ResponseWriter, r *http.Request) error {
	content := clientsPage{All: client.Clients(), Chosen: r.PathValue("name")}
	if content.Chosen == "" {
		return h.render(w, r, http.StatusOK, "clients.html", "Clients", content)
	}
	i := slices.IndexFunc(content.All, func(c client.Client) bool { return c.Name == content.Chosen })
	if i < 0 {
		return &pageError{http.StatusNotFound, "This client is not known", content.Chosen}
	}
	content.About = content.All[i].About
	mirror, err := h.mirror(r)
	if err != nil {
		return err
	}
	if content.Config, err = client.Build(content.Chosen, mirror); err != nil {
		content.Error = err.Error()
	}
	return h.render(w, r, http.StatusOK, "clients.html", "Use with "+content.Chosen, content)
}

// mirror describes this mirror: its address as the browser has it, and the
// registries that it has images of or fetches.
func (h *Handler) mirror(r *http.Request) (client.Mirror, error) {
	m := client.Mirror{Aliases: h.Aliases}
	m.Address, m.TLS = h.address(r)
	pinned, err := h.Store.Registries(r.Context())
	if err != nil {
		return m, err
	}
	m.Registries = slices.Concat(h.PullThrough, pinned)
	slices.Sort(m.Registries)
	if m.Registries = slices.Compact(m.Registries); len(m.Registries) == 0 {
		m.Registries = []string{"docker.io"}
	}
	return m, nil
}

package page

import (
	"crypto/hmac"
	"errors"
	"net/http"
	"net/url"
	"time"

	"mirrorctl/store"
)

// removePage is the content of remove.html.
type removePage struct {
	Pin   store.Pin
	URL   string // of the image
	Token string
	User  string
}

// askRemove shows what would be dropped, and a button.
func (h *Handler) askRemove(w http.ResponseWriter, r *http.Request) error {
	user, ok := h.Admin(w, r)
	if !ok {
		return nil
	}
	pin, err := h.named(r)
	if err != nil {
		return err
	}
	return h.render(w, r, http.StatusOK, "remove.html", "Remove "+pin.Name(), removePage{
		Pin: pin.Pin, URL: imageURL(pin.Name()), Token: h.token(user, pin.Name()), User: user,
	})
}

// remove drops a pin, as mirrorctl rm does, and leads to the list.
func (h *Handler) remove(w http.ResponseWriter, r *http.Request) error {
	user, ok := h.Admin(w, r)
	if !ok {
		return nil
	}
	pin, err := h.named(r)
	if err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(w, r.Body, 4<<10)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(10 * time.Second))
	if !hmac.Equal([]byte(r.PostFormValue("token")), []byte(h.token(user, pin.Name()))) {
		return &pageError{http.StatusForbidden, "Nothing was removed", "The form was not from here, or the mirror has restarted since. Go back and try again."}
	}
	ctx := store.WithNote(r.Context(), "removed on the page by "+user)
	_, freed, err := h.Store.Remove(ctx, pin.Repository, pin.Reference)
	if errors.Is(err, store.ErrNotFound) {
		return notPinned(pin.Name())
	}
	if err != nil {
		return err
	}
	h.Log.InfoContext(r.Context(), "pin removed on the page", "image", pin.Name(), "digest", pin.Digest, "user", user, "freed", freed.Bytes)
	http.Redirect(w, r, "/?removed="+url.QueryEscape(pin.Name()), http.StatusSeeOther)
	return nil
}

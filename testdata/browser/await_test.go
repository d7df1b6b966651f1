package browser

import "github.com/chromedp/cdproto/runtime"

// awaitPromise has Evaluate return what a promise comes to.
func awaitPromise(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

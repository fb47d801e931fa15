"""Words that Chromium's BiDi does not set in each target of a context: user agent, headers, ``block=``.

``emulation.setUserAgentOverride`` (chromium-bidi, measured with 156) has three gaps.  For pages it
removes the client hints (``Sec-CH-UA``, ``navigator.userAgentData``) in place of changing them.  Shared
and service workers keep the browser's own ``navigator.userAgent`` and hints.  The script of a service
worker is fetched with the browser's own User-Agent and Accept-Language, and without extra headers.

This module closes the gaps with a hidden page of the default context.  The page gets a DevTools
connection of its own by ``Target.exposeDevToolsProtocol``.  (ChromeDriver runs chromium-bidi in another
such page, to which no further script can be added.)  The script of the hidden page attaches to each new
page, frame and worker of a context before its scripts run (``Target.setAutoAttach`` with
``waitForDebuggerOnStart``), sets what BiDi does not set, and lets the target run.  While no context
needs it, it attaches to nothing.  ChromeDriver lists the hidden page among the window handles; the
drivers of this package leave it out.

For ``block=`` the script uses ``Fetch.enable``: it holds up only the requests that match, and fails
them. This works also while ChromeDriver is busy with a page load.
"""

from __future__ import annotations

import json
from typing import Any

from ..options.identity import Identity
from .bidi import BidiConnection, ProtocolError
from .blocking import chromium_patterns
from .client_hints import client_hints

TITLE = "browserkeeper"
"""The title of the hidden page.  Pages of sites with this title have another type of target."""

SCRIPT = r"""
(() => {
  const rules = new Map(), waiting = new Map();
  const sessions = new Map(), released = new Set();  // session and target by its id, and ids
  let number = 0;
  const send = (method, params = {}, sessionId = undefined) => new Promise((done) => {
    waiting.set(++number, done);
    browserkeeper.send(JSON.stringify({id: number, method, params, sessionId}));
  });
  const follow = (sessionId, more = {}) => send(
    'Target.setAutoAttach',
    {autoAttach: true, waitForDebuggerOnStart: true, flatten: true, ...more},
    sessionId,
  );

  // No answer is awaited: a worker answers only once it runs, and the commands keep their order.
  const apply = ({sessionId, targetInfo: {targetId, type, url, browserContextId}}) => {
    const rule = rules.get(browserContextId);
    if (rule) {
      const shared = type === 'shared_worker' || type === 'service_worker';
      const agent = shared ? rule.agentOfShared : rule.agent;
      if (agent) send('Emulation.setUserAgentOverride', agent, sessionId);
      if (type === 'page' || type === 'iframe') follow(sessionId);
      // A target runs as soon as one client lets it run; chromium-bidi may not have set headers by then.
      if (rule.headers.length && (type === 'page' || type === 'iframe')) {
        const headers = Object.fromEntries(rule.headers.map(({name, value}) => [name, value]));
        send('Network.enable', {}, sessionId);
        send('Network.setExtraHTTPHeaders', {headers}, sessionId);
      }
      if (rule.workerScript && shared) {
        send('Runtime.evaluate', {expression: rule.workerScript}, sessionId);
      }
      const patterns = released.has(targetId) ? [] : [...rule.block];
      let script = '';
      if (rule.headers.length && type === 'service_worker' && url) {
        patterns.push({urlPattern: url.replace(/[*?\\]/g, '\\$&')});
        script = url;
      }
      if (patterns.length) {
        send('Fetch.enable', {patterns}, sessionId);
        fetches.set(sessionId, {rule, script});
      }
    }
  };
  const attached = (one) => {
    sessions.set(one.targetInfo.targetId, one);
    apply(one);
    send('Runtime.runIfWaitingForDebugger', {}, one.sessionId);
  };
  const of = (context) => [...sessions.values()].filter(
    ({targetInfo}) => targetInfo.browserContextId === context,
  );
  const reset = ({sessionId}) => {
    fetches.delete(sessionId);
    send('Fetch.disable', {}, sessionId);
    send('Emulation.setUserAgentOverride', {userAgent: ''}, sessionId);
    send('Network.setExtraHTTPHeaders', {headers: {}}, sessionId);
  };

  const fetches = new Map();  // rule, and script of a service worker, by session
  const paused = ({requestId, request}, sessionId) => {
    const {rule, script} = fetches.get(sessionId) ?? {};
    if (rule && request.url !== script) {
      send('Fetch.failRequest', {requestId, errorReason: 'BlockedByClient'}, sessionId);
      return;
    }
    const headers = rule?.headers ?? [];
    fetches.delete(sessionId);
    const ours = new Set(headers.map(({name}) => name.toLowerCase()));
    const others = Object.entries(request.headers)
      .filter(([name]) => !ours.has(name.toLowerCase()))
      .map(([name, value]) => ({name, value}));
    send('Fetch.continueRequest', {requestId, headers: [...others, ...headers]}, sessionId);
    if (rule?.block.length) {
      fetches.set(sessionId, {rule, script: ''});
      send('Fetch.enable', {patterns: rule.block}, sessionId);
    } else send('Fetch.disable', {}, sessionId);
  };

  browserkeeper.onmessage = (text) => {
    const {id, method, params, sessionId, error} = JSON.parse(text);
    if (id) {
      waiting.get(id)(error?.message ?? '');
      waiting.delete(id);
    } else if (method === 'Target.attachedToTarget') attached(params);
    else if (method === 'Target.detachedFromTarget') {
      fetches.delete(params.sessionId);
      for (const [target, session] of sessions) {
        if (session.sessionId === params.sessionId) sessions.delete(target) && released.delete(target);
      }
    }
    else if (method === 'Fetch.requestPaused') paused(params, sessionId);
  };

  const kinds = ['page', 'shared_worker', 'service_worker'].map((type) => ({type}));
  globalThis.browserkeeperTargets = {
    add(rule) {
      rules.set(rule.context, rule);
      of(rule.context).forEach(apply);  // attached already, because of another context's rule
      return follow(undefined, {filter: [...kinds, {exclude: true}]});
    },
    remove(context) {
      rules.delete(context);
      if (rules.size) of(context).forEach(reset);  // else they are detached from
      const none = {autoAttach: false, waitForDebuggerOnStart: false};
      return rules.size ? '' : follow(undefined, none);
    },
    release(target) {
      const session = sessions.get(target)?.sessionId;
      if (!rules.size) return '';
      released.add(target);  // which may be attached only later
      fetches.delete(session);
      return session ? send('Fetch.disable', {}, session) : '';
    },
  };
})()
"""
"""The functions of ``browserkeeperTargets`` return the text of an error, or "", or a promise of
these."""


class TargetOverrides:
    """The hidden page of one browser, and its script."""

    def __init__(self, connection: BidiConnection):
        """Find the hidden page, or make it.  Raises ProtocolError, or an error of the websocket."""
        self._connection = connection
        self.page: str = _find(connection) or self._make_page()
        """The page's id, which is also its window handle."""

    def _make_page(self) -> str:
        url = f"data:text/html,<title>{TITLE}</title>"
        page = str(self._connection.cdp("Target.createTarget", url=url, hidden=True)["targetId"])
        self._connection.cdp(
            "Target.exposeDevToolsProtocol", targetId=page, bindingName=TITLE, inheritPermissions=True
        )
        self._evaluate(SCRIPT, page)
        return page

    def add(self, context: str, identity: Identity) -> None:
        """Apply the identity to all targets of a context, present and future.

        ``context``: its id in the DevTools protocol.  Raises the errors of the constructor.
        """
        rule = json.dumps({"context": context, **_rule(identity)})
        if problem := self._evaluate(f"browserkeeperTargets.add({rule})"):
            raise ProtocolError(f"Target.setAutoAttach: {problem}")

    def remove(self, context: str) -> None:
        """Undo :meth:`add` for later targets.  Raises the errors of the constructor."""
        self._evaluate(f"browserkeeperTargets.remove({json.dumps(context)})")

    def release(self, target: str) -> None:
        """End the blocking of requests of one page, by its id.  Raises the errors of the constructor."""
        self._evaluate(f"browserkeeperTargets.release({json.dumps(target)})")

    def _evaluate(self, expression: str, page: str = "") -> str:
        """Evaluate an expression in the hidden page, and return its value as text.  Raises ProtocolError
        without the text of the expression, which may contain values of headers."""
        attached = self._connection.cdp(
            "Target.attachToTarget", targetId=page or self.page, flatten=True
        )
        params = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = self._connection.command(
            "goog:cdp.sendCommand",
            {"method": "Runtime.evaluate", "params": params, "session": attached["sessionId"]},
        )["result"]
        self._connection.cdp("Target.detachFromTarget", sessionId=attached["sessionId"])
        if "exceptionDetails" in answer:
            raise ProtocolError("Runtime.evaluate: the script for targets has failed")
        return str(answer["result"].get("value") or "")


def _find(connection: BidiConnection) -> str:
    """The id of the hidden page, or "" where the browser has none."""
    targets = connection.cdp("Target.getTargets")["targetInfos"]
    found = [t["targetId"] for t in targets if (t["type"], t["title"]) == ("other", TITLE)]
    return str(found[0]) if found else ""


def release(connection: BidiConnection, target: str) -> None:
    """End ``block=`` for one page, by its id.  Raises the errors of TargetOverrides."""
    if _find(connection):
        TargetOverrides(connection).release(target)


def _rule(identity: Identity) -> dict[str, Any]:
    """The parameters of the script for the targets of one context.

    Without ``userAgentMetadata`` a page sends no client hints, with an empty one it sends empty hints.
    Shared and service workers, which send none, need it to have no brands of their own.
    """
    headers = [{"name": name, "value": value} for name, value in identity.extra_headers or ()]
    rule: dict[str, Any] = {"headers": headers, "block": chromium_patterns(identity.block)}
    if identity.locale:
        headers.append({"name": "Accept-Language", "value": identity.locale})
    if identity.user_agent:
        headers.append({"name": "User-Agent", "value": identity.user_agent})
        agent = {"userAgent": identity.user_agent}
        if identity.locale:
            agent["acceptLanguage"] = identity.locale
        hints = client_hints(identity.user_agent)
        rule["agent"] = {**agent, "userAgentMetadata": hints} if hints["brands"] else agent
        rule["agentOfShared"] = {**agent, "userAgentMetadata": hints}
        rule["workerScript"] = _worker_script(identity.user_agent)
    return rule


def _worker_script(user_agent: str) -> str:
    """A script that sets ``navigator.userAgent`` in shared and service workers, where the DevTools
    protocol cannot change it."""
    values = {"userAgent": user_agent, "appVersion": user_agent.removeprefix("Mozilla/")}
    return "".join(
        f"Object.defineProperty(WorkerNavigator.prototype, '{name}', "
        f"{{get: () => {json.dumps(value)}, enumerable: true, configurable: true}});"
        for name, value in values.items()
    )


__all__ = ["TargetOverrides", "release"]

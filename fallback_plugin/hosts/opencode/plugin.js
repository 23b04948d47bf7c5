// fallback-plugin for OpenCode: written by `fallback-plugin install opencode`, removed by `fallback-plugin uninstall opencode`.
//
// This side only carries. It starts one Python process per OpenCode process and speaks JSON-RPC 2.0 with it, one message a
// line, over its stdin and stdout; every decision is made there. From here go the host's events and hooks; from there come
// HTTP requests, which are carried out by the host's in-process fetch, since in the TUI the server has no port.
//
//   here → Python   project.opened {directory, url, config}   project.closed {directory}     notifications
//                   event {directory, event}                  tool.executed {directory, …}   notifications
//                   chat.message {directory, sessionID, …} → {model?}                        request, at most WAIT ms
//   Python → here   http {directory, method, path, headers, body, timeout} → {status, headers, body}
//                   log {directory, level, message}                                          notification
//
// It fails open: no hook but chat.message waits, nothing that goes wrong here or there reaches the host, a process that is
// dead, stuck or talks nonsense is replaced, later and later.
import { spawn } from "node:child_process"

const COMMAND = ["python3", "-m", "fallback_plugin", "bridge"]
const WAIT = 250 // ms that a prompt waits for Python at most
const FIRST_PAUSE = 250, LONGEST_PAUSE = 30_000, PROVEN = 30_000 // ms: restarts, and the life after which they begin anew
const BACKLOG = 8 * 1024 * 1024 // bytes that may wait for a process that does not read
const LINE = 16 * 1024 * 1024 // characters of a line that never ends
const NONSENSE = 20 // lines that are no JSON-RPC, until the process counts as broken
const TOKEN_PAUSE = 250 // ms between two tokens that are passed on; the rest tell nothing new
const EVENTS = new Set([
  "message.updated", "message.part.updated", "message.part.delta", "message.removed", "session.error",
  "session.status", "session.idle", "session.created", "session.deleted", "session.compacted",
])
const MODULE = Symbol("this copy of the plugin")

class Bridge {
  projects = new Map() // directory → {client, config, owner}
  waiting = new Map() // id of a request of ours → what takes its answer
  tokens = new Map() // message and part → when a token of it was last passed on
  child = null
  id = 0
  failures = 0 // lives in a row that were short
  told = false

  open(directory, project) {
    this.projects.set(directory, project)
    if (!this.child && !this.timer) this.start()
  }

  introduce(directory) {
    const { client, config } = this.projects.get(directory)
    if (config) this.tell("project.opened", { directory, url: String(client._client?.getConfig?.().baseUrl ?? ""), config })
  }

  close(directory, owner) {
    if (this.projects.get(directory)?.owner !== owner) return
    this.projects.delete(directory)
    this.tell("project.closed", { directory })
  }

  start() {
    this.timer = undefined
    const born = Date.now()
    const child = spawn(COMMAND[0], COMMAND.slice(1), { stdio: ["pipe", "pipe", "ignore"], windowsHide: true })
    this.child = child
    child.once("error", (error) => this.ended(child, error))
    child.once("exit", () => this.ended(child, null, Date.now() - born))
    child.stdin.on("error", () => {})
    this.listen(child)
    child.unref()
    for (const directory of this.projects.keys()) this.introduce(directory)
  }

  listen(child) {
    let rest = "", bad = 0
    child.stdout.setEncoding("utf8")
    child.stdout.on("error", () => {})
    child.stdout.on("data", (text) => {
      const lines = (rest + text).split("\n")
      rest = lines.pop()
      for (const line of lines) if (line && !this.take(child, line)) bad += 1
      if (bad > NONSENSE || rest.length > LINE) this.kill(child)
    })
  }

  kill(child) {
    child.kill("SIGKILL")
    this.ended(child, null)
  }

  ended(child, error, life = 0) {
    if (child !== this.child) return
    this.child = null
    for (const answer of this.waiting.values()) answer(undefined)
    this.waiting.clear()
    this.failures = life > PROVEN ? 0 : this.failures + 1
    if (this.projects.size === 0) return
    if (error || this.failures === 3) this.complain(error?.code ?? "it ends at once")
    const pause = Math.min(FIRST_PAUSE * 2 ** Math.max(this.failures - 1, 0), LONGEST_PAUSE)
    this.timer = setTimeout(() => this.start(), pause)
    this.timer.unref?.()
  }

  complain(reason) {
    if (this.told) return
    this.told = true
    const message = `No fallback: ${COMMAND[0]} can't be run (${reason}). Try: fallback-plugin doctor`
    const body = JSON.stringify({ title: "fallback-plugin", message, variant: "warning", duration: 10_000 })
    this.log({ level: "error", message })
    // The TUI shows nothing while it starts.
    setTimeout(() => this.http({ method: "POST", path: "/tui/show-toast", body }).catch(() => {}), 3_000).unref()
  }

  log({ directory, level, message }) {
    const body = JSON.stringify({ service: "fallback-plugin", level, message })
    this.http({ directory, method: "POST", path: "/log", body }).catch(() => {})
  }

  send(message) {
    const child = this.child
    if (!child?.stdin?.writable) return false
    if (child.stdin.writableLength > BACKLOG) {
      this.kill(child)
      return false
    }
    child.stdin.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n")
    return true
  }

  tell(method, params) {
    return this.send({ method, params })
  }

  ask(method, params) {
    const id = ++this.id
    if (!this.send({ id, method, params })) return Promise.resolve(undefined)
    return new Promise((resolve) => {
      const answer = (result) => {
        clearTimeout(timer)
        this.waiting.delete(id)
        resolve(result)
      }
      const timer = setTimeout(answer, WAIT)
      this.waiting.set(id, answer)
    })
  }

  // Whether a line was JSON-RPC.
  take(child, line) {
    let message
    try {
      message = JSON.parse(line)
    } catch {
      return false
    }
    if (message?.jsonrpc !== "2.0") return false
    if (message.method === undefined) this.waiting.get(message.id)?.(message.result)
    else if (message.method === "log") this.log(message.params ?? {})
    else this.answer(message)
    return true
  }

  async answer({ id, method, params }) {
    try {
      if (method !== "http") throw Object.assign(new Error(`no method ${method}`), { rpc: -32601 })
      this.send({ id, result: await this.http(params) })
    } catch (error) {
      this.send({ id, error: { code: error.rpc ?? -32000, message: String(error.name ?? "Error") } })
    }
  }

  async http({ directory, method, path, headers, body, timeout }) {
    const project = this.projects.get(directory) ?? this.projects.values().next().value
    if (!project) throw new Error("no project is open")
    const config = project.client._client.getConfig()
    const own = new Headers(config.headers)
    for (const [name, value] of Object.entries(headers ?? {})) own.set(name, value)
    const signal = AbortSignal.timeout(timeout ?? 10_000)
    const options = { method, headers: own, body: body ?? undefined, signal }
    const response = await config.fetch(new Request(new URL(path, config.baseUrl), options))
    const type = response.headers.get("content-type") ?? ""
    return { status: response.status, headers: { "content-type": type }, body: await response.text() }
  }

  forward(directory, event) {
    if (!EVENTS.has(event.type)) return
    if (event.type === "message.part.delta" && !this.isNews(event.properties)) return
    this.tell("event", { directory, event: event.type === "message.part.updated" ? withoutText(event) : event })
  }

  isNews({ messageID, partID }) {
    const key = messageID + partID, now = Date.now()
    if (now - (this.tokens.get(key) ?? 0) < TOKEN_PAUSE) return false
    if (this.tokens.size > 1000) this.tokens.clear()
    this.tokens.set(key, now)
    return true
  }
}

// A part as far as Python needs it: whether there is text, not which.
function withoutText(event) {
  const { id, sessionID, messageID, type, tool, callID, text, state } = event.properties.part
  const known = state && { status: state.status, metadata: { sessionId: state.metadata?.sessionId } }
  const part = { id, sessionID, messageID, type, tool, callID, text: text ? "…" : "", state: known }
  return { id: event.id, type: event.type, properties: { sessionID: event.properties.sessionID, part } }
}

// The host's configuration as far as Python needs it: no keys, no prompts.
function chainsOf(config) {
  const agents = Object.entries(config?.agent ?? {}).map(([name, agent]) => {
    const { model, fallback_models, options } = agent ?? {}
    return [name, { model, fallback_models, options: { fallback_models: options?.fallback_models } }]
  })
  return { model: config?.model, agent: Object.fromEntries(agents) }
}

// Whatever goes wrong in here, the host goes on.
const quietly = (hook) => async (...values) => {
  try {
    await hook(...values)
  } catch {}
}

export const FallbackPlugin = async ({ client, directory }) => {
  const bridge = (globalThis[Symbol.for("fallback-plugin.bridge")] ??= new Bridge())
  const other = bridge.projects.get(directory)
  if (other && other.owner !== MODULE) return {} // installed twice, for the project and for the user

  bridge.open(directory, { client, config: undefined, owner: MODULE })
  return {
    config: quietly((config) => {
      const project = bridge.projects.get(directory)
      if (!project) return
      project.config = chainsOf(config)
      bridge.introduce(directory)
    }),
    event: quietly(({ event }) => bridge.forward(directory, event)),
    "chat.message": quietly(async (input, output) => {
      const { id, agent, model } = output.message
      const { sessionID, messageID, model: picked } = input
      const params = { directory, sessionID, messageID, agent: agent ?? input.agent, model, picked: Boolean(picked), id }
      const answer = model && (await bridge.ask("chat.message", params))
      if (answer?.model) output.message.model = answer.model
    }),
    "tool.execute.after": quietly(({ tool, sessionID, callID }) => {
      bridge.tell("tool.executed", { directory, tool, sessionID, callID })
    }),
    dispose: quietly(() => bridge.close(directory, MODULE)),
  }
}

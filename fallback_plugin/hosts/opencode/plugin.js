// fallback-plugin for OpenCode: written by `fallback-plugin install opencode`, removed by `fallback-plugin uninstall opencode`.
//
// This side only carries. It starts one Python process per OpenCode process and speaks JSON-RPC 2.0 with it, one message a
// line, over its stdin and stdout; every decision is made there. From here go the host's events and hooks; from there come
// HTTP requests, which are carried out by the host's in-process fetch, since in the TUI the server has no port.
//
//   here → Python   project.opened {directory, config}        project.closed {directory}     notifications
//                   event {directory, event}                  tool.executed {directory, …}   notifications
//                   chat.message {directory, sessionID, …} → {model?, created?}              request, at most WAIT ms
//   Python → here   http {directory, method, path, headers, body, timeout} → {status, headers, body}
//                   log {directory, level, message}                                          notification
//
// It fails open: no hook but chat.message waits, nothing that goes wrong here or there reaches the host, a process that is
// dead, stuck or talks nonsense is replaced, later and later.
import { spawn } from "node:child_process"

const COMMAND = ["python3", "-m", "fallback_plugin", "bridge"]
const WAIT = 250 // ms that a prompt waits for Python at most
const FIRST_PAUSE = 250, LONGEST_PAUSE = 30_000, PROVEN = 30_000 // ms: restarts, and the life after which they begin anew
const BACKLOG = 8 * 1024 * 1024 // characters that may wait for a process that does not read
const LINE = 16 * 1024 * 1024 // characters of a line that never ends
const STUCK = 30_000 // ms that a process may owe an answer
const NONSENSE = 20 // lines that are no JSON-RPC, until the process counts as broken
const TOKEN_PAUSE = 250 // ms between two tokens, or two equal words about a part; the rest tell nothing new
const EVENTS = new Set([
  "message.updated", "message.part.updated", "message.part.delta", "message.removed", "session.error",
  "session.status", "session.idle", "session.created", "session.deleted", "session.compacted",
])
const MODULE = Symbol("this copy of the plugin")
class Bridge {
  projects = new Map() // directory → {client, config, owner}
  waiting = new Map() // id of a request of ours → what takes its answer
  told = new Map() // what was said of a part → when it was last passed on
  child = null
  id = 0
  failures = 0 // lives in a row that were short
  complained = false

  open(directory, project) {
    this.projects.set(directory, project)
    if (!this.child && !this.timer) this.start()
  }

  introduce(directory) {
    const { config } = this.projects.get(directory)
    if (config) this.tell("project.opened", { directory, config })
  }

  close(directory, owner) {
    if (this.projects.get(directory)?.owner !== owner) return
    this.projects.delete(directory)
    this.tell("project.closed", { directory })
  }

  start() {
    this.timer = undefined
    this.born = Date.now()
    try {
      // Without PYTHONSAFEPATH a project's own json.py would be Python's.
      const env = { ...process.env, PYTHONSAFEPATH: "1" }
      this.child = spawn(COMMAND[0], COMMAND.slice(1), { stdio: ["pipe", "pipe", "ignore"], windowsHide: true, env })
      this.listen(this.child)
    } catch (error) {
      this.ended(this.child, error)
    }
    for (const directory of this.projects.keys()) this.introduce(directory)
  }

  listen(child) {
    let rest = "", bad = 0
    child.on("error", quietly((error) => this.ended(child, error)))
    child.on("exit", quietly(() => this.ended(child)))
    child.stdin.on("error", () => {})
    child.stdout.on("error", () => {})
    child.stdout.setEncoding("utf8")
    child.stdout.on("data", quietly((text) => {
      if (child !== this.child) return
      const lines = text.split("\n")
      lines[0] = rest + lines[0]
      rest = lines.pop()
      for (const line of lines) if (line && !this.take(line)) bad += 1
      if (bad > NONSENSE || rest.length > LINE) this.ended(child)
    }))
    // A host that is done must not wait for us.
    for (const each of [child, child.stdin, child.stdout]) each.unref?.()
  }

  ended(child, error) {
    if (child !== this.child) return
    this.child = null
    child?.kill("SIGKILL")
    for (const answer of this.waiting.values()) answer(undefined)
    this.failures = Date.now() - this.born > PROVEN ? 1 : this.failures + 1
    if (this.projects.size === 0) return
    if (error || this.failures === 3) this.complain(error?.code ?? "it ends at once")
    this.timer = setTimeout(quietly(() => this.start()), Math.min(FIRST_PAUSE * 2 ** (this.failures - 1), LONGEST_PAUSE))
    this.timer.unref?.()
  }

  complain(reason) {
    if (this.complained) return
    this.complained = true
    const message = `No fallback: ${COMMAND[0]} can't be run (${reason}). Try: fallback-plugin doctor`
    this.log({ level: "error", message })
    const body = JSON.stringify({ title: "fallback-plugin", message, variant: "warning", duration: 10_000 })
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
    if (child.unread > BACKLOG) return void this.ended(child)
    const line = JSON.stringify({ jsonrpc: "2.0", ...message }) + "\n"
    // Counted by hand: Bun's writableLength stays 0.
    child.unread = (child.unread ?? 0) + line.length
    child.stdin.write(line, () => (child.unread -= line.length))
    return true
  }

  tell(method, params) {
    return this.send({ method, params })
  }

  ask(method, params) {
    const id = ++this.id, child = this.child
    if (!this.send({ id, method, params })) return undefined
    return new Promise((resolve) => {
      const timers = [setTimeout(resolve, WAIT), setTimeout(quietly(() => this.ended(child)), STUCK)]
      timers[1].unref?.()
      this.waiting.set(id, (result) => {
        timers.forEach(clearTimeout)
        this.waiting.delete(id)
        resolve(result)
      })
    })
  }

  // Whether a line was JSON-RPC.
  take(line) {
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
      this.send({ id, error: { code: error?.rpc ?? -32000, message: String(error?.name ?? "Error") } })
    }
  }

  async http({ directory, method, path, headers, body, timeout }) {
    const project = this.projects.get(directory) ?? this.projects.values().next().value
    const config = project.client._client.getConfig()
    const own = new Headers(config.headers)
    for (const [name, value] of Object.entries(headers ?? {})) own.set(name, value)
    const signal = AbortSignal.timeout(timeout ?? 10_000)
    const options = { method, headers: own, body: body ?? undefined, signal }
    const response = await config.fetch(new Request(new URL(path, config.baseUrl), options))
    const type = response.headers.get("content-type") ?? ""
    return { status: response.status, headers: { "content-type": type }, body: await response.text() }
  }

  forward(directory, { id, type, properties }) {
    if (!EVENTS.has(type)) return
    const needed = NEEDED[type]?.(properties) ?? properties
    if (type.startsWith("message.part.") && !this.isNews(JSON.stringify(needed), Date.now())) return
    this.tell("event", { directory, event: { id, type, properties: needed } })
  }

  isNews(word, now) {
    if (now - (this.told.get(word) ?? 0) < TOKEN_PAUSE) return false
    if (this.told.size > 1000) this.told.clear()
    return this.told.set(word, now)
  }
}

// Events as far as Python needs them: of a part whether there is text, not which; of a message not the files it changed.
const NEEDED = {
  "message.part.delta": ({ sessionID, messageID, partID }) => ({ sessionID, messageID, partID }),
  "message.part.updated": ({ sessionID, part: { id, messageID, type, tool, callID, text, state, sessionID: own } }) => {
    const known = state && { status: state.status, metadata: { sessionId: state.metadata?.sessionId } }
    return { sessionID, part: { id, sessionID: own, messageID, type, tool, callID, text: text ? "…" : "", state: known } }
  },
  "message.updated": ({ sessionID, info }) => ({ sessionID, info: { ...info, summary: undefined } }),
  "session.created": ({ sessionID, info: { id, parentID } }) => ({ sessionID, info: { id, parentID } }),
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
const quietly = (work) => async (...values) => {
  try {
    await work(...values)
  } catch {}
}

const isModel = (model) => [model?.providerID, model?.modelID].every((name) => name && typeof name === "string")

export const FallbackPlugin = async ({ client, directory }) => {
  const bridge = (globalThis[Symbol.for("fallback-plugin.bridge")] ??= new Bridge())
  const other = bridge.projects.get(directory)
  if (other && other.owner !== MODULE) return {} // installed twice, for the project and for the user

  bridge.open(directory, { client, config: undefined, owner: MODULE })
  return {
    config: quietly((config) => {
      bridge.projects.get(directory).config = chainsOf(config)
      bridge.introduce(directory)
    }),
    event: quietly(({ event }) => bridge.forward(directory, event)),
    "chat.message": quietly(async (input, output) => {
      const { id, agent, model } = output.message
      const { sessionID, messageID, model: picked } = input
      const params = { directory, sessionID, messageID, agent: agent ?? input.agent, model, picked: Boolean(picked), id }
      const answer = model && (await bridge.ask("chat.message", params))
      if (isModel(answer?.model)) output.message.model = answer.model
      // A message that is resumed in place keeps its time: screens sort by it, and would show it twice.
      if (Number.isInteger(answer?.created)) output.message.time.created = answer.created
    }),
    "tool.execute.after": quietly(({ tool, sessionID, callID }) => {
      bridge.tell("tool.executed", { directory, tool, sessionID, callID })
    }),
    dispose: quietly(() => bridge.close(directory, MODULE)),
  }
}

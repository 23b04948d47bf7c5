// Loads plugin.js into a host that the test plays: a command is a line on stdin, what came of it a line on stdout.
import { createInterface } from "node:readline"

const say = (message) => process.stdout.write(JSON.stringify(message) + "\n")
const hooks = new Map() // name of a copy and directory → the hooks that it gave

process.on("uncaughtException", (error) => say({ crashed: String(error?.stack ?? error) }))
process.on("unhandledRejection", (error) => say({ crashed: String(error?.stack ?? error) }))

const config = (directory) => ({
  baseUrl: "http://opencode.test/",
  headers: new Headers({ "x-opencode-directory": directory, authorization: "Bearer host" }),
  fetch: async (request) => {
    const body = await request.text()
    say({ http: { directory, method: request.method, url: request.url, headers: [...request.headers], body } })
    const path = new URL(request.url).pathname
    if (path === "/hang") return new Promise((_, fail) => request.signal.addEventListener("abort", () => fail(request.signal.reason)))
    return new Response(path === "/session/status" ? "{}" : "true", { headers: { "content-type": "application/json" } })
  },
})

const DO = {
  async load({ url, copy, directory }) {
    const { FallbackPlugin } = await import(url)
    hooks.set(copy + directory, await FallbackPlugin({ client: { _client: { getConfig: () => config(directory) } }, directory }))
    return Object.keys(hooks.get(copy + directory))
  },
  async hook({ copy, directory, name, values, times = 1 }) {
    const before = performance.now()
    for (let n = 0; n < times; n++) {
      const result = hooks.get(copy + directory)[name](...values)
      if (!(result instanceof Promise)) throw new Error("a hook that is no promise")
      await result
    }
    return { milliseconds: performance.now() - before, values }
  },
  async break({ copy, directory, name }) {
    for (const value of [undefined, null, 3, {}, { event: null }, { event: { type: "message.part.updated" } }, { message: {} }])
      await hooks.get(copy + directory)[name](value, value)
  },
  close: async () => void process.stdin.destroy(),
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, verb, ...params } = JSON.parse(line)
  try {
    say({ id, result: (await DO[verb](params)) ?? null })
  } catch (error) {
    say({ id, error: String(error?.stack ?? error) })
  }
  if (verb === "close") break
}

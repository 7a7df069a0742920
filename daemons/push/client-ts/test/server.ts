/** A server for tests: it answers as it is told, request after request, and remembers. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

import { Sender, type SenderOptions } from "../src/index.js";

export interface Asked {
  line: string;
  headers: IncomingMessage["headers"];
  body: string;
}

/** What the server does with a request that it has read. */
export type Reply = (response: ServerResponse, asked: Asked) => void;

/** Answers with a status, a body, and more headers. */
export function answer(status: number, body: unknown, headers: Record<string, string> = {}): Reply {
  return (response) => {
    response.writeHead(status, headers);
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  };
}

/** Closes the connection. */
export const hangUp: Reply = (response) => {
  response.destroy();
};

export class Server {
  readonly asked: Asked[] = [];
  readonly base: string;
  readonly #close: () => Promise<void>;

  private constructor(base: string, close: () => Promise<void>) {
    this.base = base;
    this.#close = close;
  }

  /** Answers one request after the other with these. */
  static async start(...replies: Reply[]): Promise<Server> {
    const http = createServer((request, response) => {
      let body = "";
      request.setEncoding("utf8");
      request.on("data", (text: string) => (body += text));
      request.on("end", () => {
        const line = `${request.method} ${request.url}`;
        const asked = { line, headers: request.headers, body };
        server.asked.push(asked);
        (replies.shift() ?? answer(500, "nothing more was to be asked"))(response, asked);
      });
    });
    await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
    const { port } = http.address() as AddressInfo;
    const server: Server = new Server(`http://127.0.0.1:${port}`, async () => {
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    });
    return server;
  }

  /** A sender that waits little. */
  sender(options: SenderOptions = {}): Sender {
    const patience = { attemptsMax: 4, firstWaitMaxMs: 1, waitMaxMs: 4, ...options.patience };
    return new Sender(this.base, "shop", "spk_test", { ...options, patience });
  }

  async close(): Promise<void> {
    await this.#close();
  }
}

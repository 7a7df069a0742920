/** What senders need. Devices import `@sextant/push/device`. */
export { Backoff } from "./backoff.js";
export { AnswerError, ProblemError, RequestError, TransportError } from "./errors.js";
export type { Problem } from "./errors.js";
export { Sender } from "./sender.js";
export type { Patience, SenderOptions, Upload } from "./sender.js";
export type * from "./types.js";

// Runes everywhere; TypeScript is understood by the compiler itself.
export default { compilerOptions: { runes: true } };

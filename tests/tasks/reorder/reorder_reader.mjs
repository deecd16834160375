// A reader of chunk_reorder.json that follows the file's description alone; prints what it makes of it, as JSON.
import { readFileSync } from "node:fs";

const firstLast = (n) => {
  const ranks = [];
  for (let rank = 1; rank <= n; rank += 2) ranks.push(rank);
  for (let rank = n - (n % 2); rank > 0; rank -= 2) ranks.push(rank);
  return ranks;
};
const count = (n) => Array.from({ length: n }, (_, i) => i + 1);

function calibrated(n, curve) {
  const longest = Math.max(...curve.map((point) => point.length));
  const points = curve.filter((point) => point.length === longest).sort((a, b) => a.depth - b.depth);
  const flat = Math.max(...points.map((p) => p.low)) <= Math.min(...points.map((p) => p.high));
  if (points.length < 2 || flat || new Set(points.map((p) => p.depth)).size < points.length) return firstLast(n);
  const recall = (depth) => {
    const right = points.findIndex((point) => point.depth > depth);
    if (right === 0) return points[0].recall;
    if (right < 0) return points[points.length - 1].recall;
    const [a, b] = [points[right - 1], points[right]];
    return a.recall + ((depth - a.depth) / (b.depth - a.depth)) * (b.recall - a.recall);
  };
  const filledAs = firstLast(n);
  const recalls = count(n).map((i) => Number(recall(n > 1 ? (i - 1) / (n - 1) : 0).toFixed(9)));
  const places = [...recalls.keys()].sort((a, b) => recalls[b] - recalls[a] || filledAs[a] - filledAs[b]);
  const ranks = [];
  places.forEach((place, i) => (ranks[place] = i + 1));
  return ranks;
}

const config = JSON.parse(readFileSync(process.argv[2], "utf-8"));
const order = {
  none: count,
  reverse_rank: (n) => count(n).reverse(),
  important_first_last: firstLast,
  calibrated: (n) => calibrated(n, config.recall_by_position),
};
const golden = (strategy) => Object.fromEntries(count(10).map((n) => [String(n), order[strategy](n)]));
const byStrategy = Object.fromEntries(Object.keys(config.golden_by_strategy).map((name) => [name, golden(name)]));
console.log(JSON.stringify({ golden: golden(config.strategy), golden_by_strategy: byStrategy }));

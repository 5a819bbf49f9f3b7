"""Single-shot detection: a spatial transformer in front, matching of prior boxes, hard negative mining, focal loss,
IoU with distance and shape, and non-maximum suppression."""

import math
from itertools import product

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def corners(boxes):
    return torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1)


def iou_matrix(a, b):
    size = (torch.min(a[:, None, 2:], b[None, :, 2:]) - torch.max(a[:, None, :2], b[None, :, :2])).clamp(min=0)
    inter = size[..., 0] * size[..., 1]
    area_a, area_b = ((x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b))
    return inter / (area_a[:, None] + area_b - inter)


def match(truths, labels, priors, loc_t, conf_t, index):
    overlaps = iou_matrix(truths, corners(priors))
    _, best_prior = overlaps.max(1, keepdim=True)
    best, best_truth = overlaps.max(0, keepdim=True)
    best.squeeze_(0), best_truth.squeeze_(0), best_prior.squeeze_(1)
    best.index_fill_(0, best_prior, 2)
    for j in range(best_prior.size(0)):
        best_truth[best_prior[j]] = j
    matched, conf = truths[best_truth], labels[best_truth] + 1
    conf[best < 0.3] = 0
    centre = ((matched[:, :2] + matched[:, 2:]) / 2 - priors[:, :2]) / (0.1 * priors[:, 2:])
    loc_t[index] = torch.cat([centre, torch.log((matched[:, 2:] - matched[:, :2]) / priors[:, 2:]) / 0.2], 1)
    conf_t[index] = conf


def complete_iou(a, b, eps=1e-7):
    (ax, ay, aw, ah), (bx, by, bw, bh) = a.chunk(4, -1), b.chunk(4, -1)
    w = ((ax + aw / 2).minimum(bx + bw / 2) - (ax - aw / 2).maximum(bx - bw / 2)).clamp(0)
    h = ((ay + ah / 2).minimum(by + bh / 2) - (ay - ah / 2).maximum(by - bh / 2)).clamp(0)
    iou = w * h / (aw * ah + bw * bh - w * h + eps)
    v = (4 / math.pi**2) * (torch.atan(bw / bh) - torch.atan(aw / ah)).pow(2)
    with torch.no_grad():
        alpha = v / (v - iou + (1 + eps))
    return iou - ((bx - ax) ** 2 + (by - ay) ** 2 + v * alpha)


def nms(boxes, scores, threshold):
    keep, order = [], scores.sort(0, descending=True).indices
    while order.numel() > 0:
        keep.append(order[0].item())
        order = order[1:][iou_matrix(boxes[order[:1]], boxes[order[1:]])[0].le(threshold)]
    return keep


class SSD(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([[1.0, 0.1, 0.0], [0.0, 0.9, 0.1]]))
        self.offset = nn.Conv2d(3, 2, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(True), nn.Conv2d(8, 16, 3, 2, 1), nn.SELU(True))
        self.head = nn.Conv2d(16, 2 * 8, 1)

    def forward(self, x):
        grid = F.affine_grid(self.theta[None].expand(x.size(0), -1, -1), x.size(), align_corners=False)
        grid = grid + torch.tanh(self.offset(x)).permute(0, 2, 3, 1) * 0.2
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return self.head(self.body(x)).permute(0, 2, 3, 1).contiguous().view(x.size(0), -1, 8)


build = SSD


def train(model, device):
    model.to(device)
    rng = np.random.default_rng(22)
    x = torch.from_numpy(rng.standard_normal((4, 3, 16, 16), dtype=np.float32)).to(device)
    boxes = [np.sort(rng.random((n, 2, 2)), 1).reshape(n, 4) + [0, 0, 0.1, 0.1] for n in (2, 1, 3, 2)]
    boxes = [torch.tensor(b, dtype=torch.float32, device=device) for b in boxes]
    labels = [torch.from_numpy(rng.integers(0, 3, len(b))).to(device) for b in boxes]
    cells = [[(j + 0.5) / 4, (i + 0.5) / 4, s, s] for i, j in product(range(4), repeat=2) for s in (0.3, 0.5)]
    priors = torch.Tensor(cells).view(-1, 4).clamp_(max=1, min=0).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(20):
        loc, conf = model(x).split(4, dim=-1)
        loc_t, conf_t = torch.zeros_like(loc).detach(), torch.zeros(4, 32, dtype=torch.long, device=device)
        for i in range(4):
            match(boxes[i], labels[i], priors, loc_t, conf_t, i)
        pos = conf_t > 0
        loss_loc = F.smooth_l1_loss(loc[pos.unsqueeze(2).expand_as(loc)], loc_t[pos].view(-1), reduction="sum")
        mined = F.cross_entropy(conf.reshape(-1, 4), conf_t.view(-1), reduction="none").view(4, -1).detach()
        mined[pos] = 0
        rank = mined.sort(1, descending=True)[1].sort(1)[1]
        neg = rank < torch.clamp(3 * pos.sum(dim=1, keepdim=True), max=pos.size(1) - 1).expand_as(rank)
        loss_conf = F.cross_entropy(conf[(pos + neg).gt(0)], conf_t[(pos + neg).gt(0)], reduction="sum")
        p, t = torch.sigmoid(conf), F.one_hot(conf_t, 4).type_as(conf)
        bce = F.binary_cross_entropy_with_logits(conf, t, reduction="none")
        focal = ((1 - p * t - (1 - p) * (1 - t)) ** 2 * bce).sum()
        loss = (loss_loc + loss_conf + focal) / pos.sum() + (1 - complete_iou(loc.sigmoid(), priors)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()
    yield float(sum(nms(corners(priors), conf[0].detach().softmax(-1)[:, 1:].max(-1).values, 0.3)))

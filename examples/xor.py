"""The smallest complete program: a network that learns exclusive or.

python examples/xor.py
"""

import gpugrad as gg
from gpugrad import nn

gg.manual_seed(0)
inputs = gg.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
targets = gg.tensor([[0.0], [1.0], [1.0], [0.0]])

model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = gg.optim.Adam(model.parameters(), lr=0.05)

for _ in range(300):
    loss = nn.functional.mse_loss(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

print(f"loss {loss.item():.6f}")
for (a, b), y in zip(inputs.tolist(), model(inputs).flatten().tolist(), strict=True):
    print(f"{a:.0f} xor {b:.0f} = {y:.3f}")

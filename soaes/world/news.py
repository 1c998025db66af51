"""Plain prose beside the facts: weather, markets, meetings, daily life. Slots are filled by `documents`. Plain data."""
# ruff: noqa: SIM905 - a list of words reads best as words

SLOTS = {
    "day": "今天 周一 周二 周三 周四 周五 周六 周日 月初 月底 近日 这几天".split(),
    "sky": "晴朗 多云 转阴 转晴 闷热 凉爽".split(),
    "storm": "大雨 大雾 暴雨 大雪 大风 冷空气".split(),
    "warm": "15 18 21 24 27 30".split(),
    "cold": "2 4 6 8 10 12".split(),
    "goods": "蔬菜 水果 粮食 猪肉 钢材 煤炭 棉花 食用油".split(),
    "move": "小幅上涨 略有下降 保持稳定 明显回落 稳中有升 有所波动".split(),
    "meeting": "安全生产会议 经济工作座谈会 科技创新大会 防汛工作会议 就业工作会议 绿色发展论坛".split(),
    "aim": "稳定就业 扩大内需 改善民生 保护环境 鼓励创新 保障供应".split(),
    "place": "公园 图书馆 菜市场 火车站 学校 医院 社区 车间".split(),
    "people": "居民 游客 学生 工人 老人 志愿者 技术人员 农民".split(),
    "act": "打扫卫生 排队买票 练习书法 参加培训 观看演出 讨论问题 检查设备 种植树木".split(),
}

NEWS = [
    "{day}，{city}天气{sky}，最高气温{warm}度。",
    "{day}，{city}将有{storm}，气象部门提醒{people}注意出行安全。",
    "受{storm}影响，{city}的气温降到{cold}度。",
    "{day}，{city}的{goods}价格{move}。",
    "市场监测显示，{goods}价格{move}，供应充足。",
    "业内人士认为，{goods}价格{move}与季节有关。",
    "{day}，{city}召开{meeting}，要求{aim}。",
    "{day}，{meeting}在{city}举行，与会代表就{aim}交换了意见。",
    "有关部门表示，将采取措施{aim}。",
    "{day}，{city}的{people}在{place}{act}。",
    "{place}里，许多{people}正在{act}。",
    "{city}新建的{place}已对外开放，{people}纷纷前来。",
    "{people}说，{place}的变化让生活更方便了。",
    "今年以来，{city}新增就业岗位数千个，为{aim}打下了基础。",
    "国有企业要在{aim}中发挥带头作用。",
    "{day}，多家国有企业的负责人到{city}调研{goods}供应情况。",
    "专家建议，国有企业改革要坚持市场化方向，注重{aim}。",
    "{city}将继续优化营商环境，{aim}。",
]

TALKS = [
    "问：{q}答：{a}",
    "老师问：“{q}”学生答：“{a}”",
    "有读者来信问：“{q}”编辑回答：“{a}”",
    "“{q}”“{a}”",
]

TITLES = ["{x}简介。", "关于{x}。", "{x}。", "词条：{x}。"]
LEADS = ["据介绍，", "资料显示，", "据记载，", "众所周知，", "书上说，"]
CLOSINGS = {
    "city": ["{r}的居民热情好客。", "每年都有不少游客来到{r}。", "{r}的交通十分便利。"],
    "book": ["{r}很受读者欢迎。", "{r}后来多次重印。", "不少人年轻时读过{r}。"],
    "dish": ["{r}在宴席上很常见。", "{r}在家里也能做。", "喜欢{r}的人不少。"],
    "person": ["{r}一生勤奋。", "{r}待人谦和。", "许多人敬重{r}。"],
    "animal": ["{r}胆小而机警。", "{r}受到法律保护。", "人们很少见到{r}。"],
    "instrument": ["学习{r}的人越来越多。", "{r}深受听众喜爱。", "{r}的制作工艺比较复杂。"],
    "plant": ["{r}不难栽种。", "{r}在花市上很常见。", "园艺爱好者喜欢种{r}。"],
    "mountain": ["{r}的空气十分清新。", "{r}适合秋天游览。", "登山爱好者喜欢{r}。"],
}
